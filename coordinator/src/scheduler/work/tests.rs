use lsa_common::id::AttemptId;
use lsa_common::job::Trials;
use lsa_common::metric::Number;
use lsa_common::report::Outcome;

use super::record::REMAKES_MAX;
use super::*;
use crate::plan::{Comparison, WorkId};
use crate::scheduler::event::Commit;

/// Eight trials, two to a unit, of which the bucket holds the first three, the third one as generation 4.
fn opened() -> WorkState {
    opened_with(Trials::Fixed(8), &[(0, 0), (1, 0), (2, 4)])
}

/// A comparison of which the bucket holds some trials, each as some generation.
fn opened_with(trials: Trials, there: &[(u32, u32)]) -> WorkState {
    let what = What::Compare(Comparison::of_trials(trials));
    let id = WorkId(Digest::of(b"work"));
    let work = Work { id, what, depends_on: Vec::new(), memory_bytes: 0, flop: 0 };
    let mut state = WorkState::new(Arc::new(work));
    state.rows_keys = vec![Digest::of(b"rows")];
    let found = |(trial, generation): &(u32, u32)| {
        ((*trial, Item::Trial(*trial)), Found { generation: *generation, intact: true })
    };
    state.open(Survey {
        numeric_profile: "cpu".to_owned(),
        key: Some(Digest::of(b"key")),
        found: there.iter().map(found).collect(),
    });
    state
}

fn lease(attempt: u128, deadline: u64) -> Lease {
    Lease {
        worker: "w".parse().expect("a plain name"),
        attempt: AttemptId(attempt),
        since: Millis(0),
        deadline: Millis(deadline),
        progress: (0, 0),
    }
}

/// Lends the first unit that is ready.
fn lend(state: &mut WorkState, lease: Lease) -> Option<u32> {
    let index = state.ready().next()?;
    state.lend(index, lease).map(|_| index)
}

fn report(state: &WorkState, index: u32, attempt: u128) -> Reported {
    Reported {
        worker: "w".parse().expect("a plain name"),
        unit: state.unit_id(index),
        attempt: AttemptId(attempt),
        elapsed_ms: 1,
        outcome: Outcome::Compared(Vec::new()),
    }
}

fn run(state: &mut WorkState, index: u32, attempt: u128) -> Arc<Commit> {
    let report = report(state, index, attempt);
    let commit = state.begin_commit(Millis(0), index, report).expect("the unit is missing something");
    state.end_commit(index, AttemptId(attempt)).expect("it was begun");
    state.done(index, AttemptId(attempt));
    commit
}

#[test]
fn only_what_is_missing_becomes_a_unit() {
    let state = opened();
    let missing: Vec<_> = state.units.iter().map(|(index, unit)| (*index, unit.items.len())).collect();
    assert_eq!(missing, [(1, 1), (2, 2), (3, 2)]);
    assert_eq!((state.n_done(), state.is_complete()), (1, false));
}

fn auto() -> Trials {
    Trials::Auto { ci_half_width: Number::new(0.01).expect("finite"), max_trials: 22 }
}

/// The trials of each unit that is missing some.
fn missing(state: &WorkState) -> Vec<(u32, Vec<u32>)> {
    let trial = |item: &Item| match item {
        Item::Trial(trial) => Some(*trial),
        Item::Texts | Item::Files | Item::Rows(_) => None,
    };
    let units = state.units.iter().filter(|(_, unit)| !matches!(unit.status, UnitStatus::Done));
    units.map(|(index, unit)| (*index, unit.items.iter().filter_map(trial).collect())).collect()
}

#[test]
fn more_trials_are_units_of_their_own() {
    let mut state = opened_with(auto(), &[(3, 0), (12, 0), (15, 0)]);
    assert_eq!(missing(&state), [(0, vec![0, 1, 2, 4]), (1, vec![5, 6, 7, 8, 9])]);
    assert_eq!((state.n_units(), state.n_done()), (2, 0));
    run(&mut state, 0, 1);
    run(&mut state, 1, 2);
    assert!(state.is_complete());
    state.status = WorkStatus::Done;

    state.extend(10);
    assert_eq!(state.status, WorkStatus::Done, "they are there");
    state.extend(15);
    assert_eq!(state.status, WorkStatus::Open);
    assert_eq!(missing(&state), [(2, vec![10, 11, 13, 14])]);
    assert_eq!((state.n_units(), state.n_done()), (3, 2));
    assert!(state.has_ready());
    run(&mut state, 2, 3);
    state.extend(99);
    assert_eq!(missing(&state), [(3, vec![16, 17, 18, 19]), (4, vec![20, 21])], "no more than there can be");
    assert_eq!((state.n_units(), state.n_done()), (5, 3));
    assert_eq!(state.reopen(2, Item::Trial(12)), Remade::Will, "what was found can turn out damaged");
}

#[test]
fn where_somebody_went_further_before_nobody_has_to_ask_again() {
    let there = |n: u32| (0..n).map(|trial| (trial, 0)).collect::<Vec<_>>();
    let n_trials = |there: &[(u32, u32)]| {
        let state = opened_with(auto(), there);
        (state.n_trials, missing(&state))
    };
    assert_eq!(n_trials(&there(10)), (10, vec![]));
    assert_eq!(n_trials(&there(14)), (10, vec![]));
    assert_eq!(n_trials(&there(15)), (15, vec![]));
    assert_eq!(n_trials(&there(22)), (22, vec![]));
    assert_eq!(n_trials(&there(22)[1..]), (10, vec![(0, vec![0])]));
}

#[test]
fn a_unit_that_another_coordinator_lent_is_one_of_this_one() {
    let mut state = opened_with(auto(), &[]);
    assert!(state.may_be(&state.unit_id(2), 2) && !state.adopt(2, lease(7, 10)), "not as yet");
    state.extend_to_unit(2);
    assert_eq!((state.n_trials, state.adopt(2, lease(7, 10))), (15, true));
    state.extend_to_unit(99);
    assert_eq!(state.n_trials, 15, "there is no such unit");
}

#[test]
fn a_lease_of_another_coordinator_is_taken_over_once() {
    let mut state = opened();
    assert!(state.adopt(1, lease(7, 10)));
    assert!(state.adopt(1, lease(7, 20)), "it says again what it has");
    assert!(!state.adopt(1, lease(8, 20)), "somebody has it");
    assert!(!state.adopt(0, lease(9, 20)), "it was found done");
    assert_eq!(state.deadline_of(1, AttemptId(7)), Some(Millis(20)));
    assert_eq!(state.deadline_of(1, AttemptId(8)), None);
}

#[test]
fn progress_renews_the_lease_of_its_attempt_alone() {
    let mut state = opened();
    let index = lend(&mut state, lease(1, 10)).expect("three are ready");
    assert!(!state.renew(index, AttemptId(2), Millis(99), (1, 2)));
    assert!(state.renew(index, AttemptId(1), Millis(99), (1, 2)));
    assert_eq!(state.deadline_of(index, AttemptId(1)), Some(Millis(99)));
    assert_eq!(state.end_lease(index, AttemptId(2)), None);
    assert!(state.end_lease(index, AttemptId(1)).is_some_and(|lease| lease.progress == (1, 2)));
}

#[test]
fn a_late_report_is_recorded_and_the_lease_of_another_attempt_runs_on() {
    let mut state = opened();
    let index = lend(&mut state, lease(2, 50)).expect("three are ready");
    let late = report(&state, index, 1);
    assert!(state.begin_commit(Millis(0), index, late).is_some());
    assert!(state.renew(index, AttemptId(2), Millis(80), (0, 0)), "it is not stopped yet");
    let (committing, _) = state.end_commit(index, AttemptId(1)).expect("it was begun");
    assert_eq!(committing.own_lease(), None, "nothing is charged if it was refused");
    assert_eq!(state.deadline_of(index, AttemptId(2)), Some(Millis(80)), "leased again");
}

#[test]
fn a_unit_is_put_off_and_taken_over_all_the_same() {
    let mut state = opened();
    let index = lend(&mut state, lease(1, 10)).expect("three are ready");
    state.end_lease(index, AttemptId(1));
    state.delay(index, Millis(5_000));
    let lent: Vec<_> = (0..3).filter_map(|n| lend(&mut state, lease(10 + n, 10))).collect();
    assert_eq!(lent.len(), 2, "the third one rests");
    state.wake(Millis(4_999), index);
    assert!(!state.has_ready());
    assert!(state.adopt(index, lease(1, 10)));
    state.wake(Millis(5_000), index);
    assert!(!state.has_ready(), "it is not lent a second time");
}

#[test]
fn damage_is_made_again_as_the_next_generation() {
    let mut state = opened();
    for (index, attempt) in [(1, 1), (2, 2), (3, 3)] {
        run(&mut state, index, attempt);
    }
    assert!(state.is_complete());
    // Found, made here, and in a unit that held a found one besides.
    for (trial, index, generation) in [(0, 0, 1), (4, 2, 1), (2, 1, 5), (2, 1, 6)] {
        assert_eq!(state.reopen(index, Item::Trial(trial)), Remade::Will);
        assert!(!state.is_complete());
        let commit = run(&mut state, index, 100 + u128::from(generation));
        assert_eq!(commit.generations, BTreeMap::from([(Item::Trial(trial), generation)]));
    }
    assert!(state.is_complete());
    assert_eq!(state.n_done(), 4);
}

#[test]
fn damaged_data_are_not_recorded_twice() {
    let mut state = opened();
    run(&mut state, 1, 1);
    state.reopen(1, Item::Trial(3));
    let again = report(&state, 1, 1);
    assert!(state.begin_commit(Millis(0), 1, again).is_none());
    assert!(!state.adopt(1, lease(1, 10)));
}

#[test]
fn damage_that_is_met_while_the_unit_is_busy_waits_for_it() {
    let mut state = opened();
    let index = lend(&mut state, lease(1, 10)).expect("three are ready");
    assert_eq!((index, state.units[&1].items.len()), (1, 1), "trial 3 is missing, trial 2 was found");
    assert_eq!(state.reopen(1, Item::Trial(2)), Remade::Will);
    run(&mut state, 1, 1);
    assert!(state.has_ready());
    assert_eq!(state.units[&1].items, [Item::Trial(2)].into());
}

#[test]
fn what_is_not_there_is_not_made_again_and_nothing_for_ever() {
    let mut state = opened();
    assert_eq!(state.reopen(4, Item::Trial(8)), Remade::Unknown);
    for attempt in 0..REMAKES_MAX {
        assert_eq!(state.reopen(0, Item::Trial(0)), Remade::Will);
        run(&mut state, 0, u128::from(attempt));
    }
    assert_eq!(state.reopen(0, Item::Trial(0)), Remade::TooOften);
}

#[test]
fn a_unit_of_another_key_is_another_unit() {
    let state = opened();
    let other = state.work.unit_id(1, Digest::of(b"another key"));
    assert!(state.may_be(&state.unit_id(1), 1));
    assert!(!state.may_be(&other, 1));
}
