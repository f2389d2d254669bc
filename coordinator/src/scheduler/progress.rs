//! How works move on: blocked, looked through, open, done or failed, each with all that reads it.

use lsa_common::id::Digest;
use lsa_common::time::Millis;

use super::event::{Effect, Survey};
use super::timer::Due;
use super::work::{Abandoned, Lease, WorkState, WorkStatus};
use super::{State, policy};
use crate::plan::{Side, What, WorkId};

impl State {
    /// Moves a work on as far as its units and what it reads allow.
    pub(super) fn advance(&mut self, now: Millis, id: WorkId) {
        let Some(state) = self.works.get_mut(&id) else { return };
        if state.status == WorkStatus::Open && state.is_complete() {
            state.status = WorkStatus::Done;
        }
        let is_unblocked = state.entry.n_unmet == 0;
        if state.status == WorkStatus::Blocked && is_unblocked {
            state.status = WorkStatus::Unbound;
        }
        if state.status != WorkStatus::Unbound || now < state.not_before || !is_unblocked {
            return;
        }
        // Texts and files are the same whoever puts them there; anything else waits for a worker that would begin it.
        // A worker that began a unit of it under an earlier coordinator is such a worker.
        if !state.binds_profile() {
            self.survey(id, String::new());
        } else if let Some(profile) = self.claimant_profile(id) {
            self.survey(id, profile);
        }
    }

    fn claimant_profile(&self, work: WorkId) -> Option<String> {
        let claims = self.claims.range((work, 0)..=(work, u32::MAX)).map(|(_, claim)| &claim.lease.worker);
        let reporter = self.works.get(&work).and_then(WorkState::early_reporter);
        let profile = |worker| self.workers.get(worker).map(|worker| worker.kind.profile.to_string());
        claims.chain(reporter).find_map(profile)
    }

    /// Has the bucket looked through for a work, bound to a profile first.
    pub(super) fn survey(&mut self, id: WorkId, numeric_profile: String) {
        let key_of = |side: &Side| self.works.get(&side.extraction).and_then(|extraction| extraction.key);
        let rows_keys: Vec<Digest> = match self.works.get(&id).map(|state| &state.work.what) {
            Some(What::Compare(comparison)) => comparison.sides.iter().filter_map(key_of).collect(),
            Some(What::Prepare { .. } | What::Mirror { .. } | What::Extract(_)) | None => Vec::new(),
        };
        self.n_surveys += 1;
        let number = self.n_surveys;
        let Some(state) = self.touch(id) else { return };
        state.status = WorkStatus::Surveying(number);
        state.rows_keys = rows_keys.clone();
        let (work, jobs) = (state.work.clone(), state.jobs.iter().cloned().collect());
        self.effects.push(Effect::Survey { work, number, jobs, numeric_profile, rows_keys });
    }

    pub(super) fn surveyed(&mut self, now: Millis, id: WorkId, number: u64, survey: Survey) {
        let is_it = |state: &WorkState| state.status == WorkStatus::Surveying(number);
        if !self.works.get(&id).is_some_and(is_it) {
            return;
        }
        // Another coordinator has gone further: what its workers have is taken over.
        let claimed = self.claims_of(id).into_iter().map(|(_, index)| index).max();
        let Some(state) = self.touch(id) else { return };
        state.open(survey);
        if let Some(index) = claimed.max(state.early_units().max()) {
            state.extend_to_unit(index);
        }
        let early = state.take_early();
        self.honour_claims(id);
        for report in early {
            self.report(now, report);
        }
    }

    pub(super) fn survey_failed(&mut self, now: Millis, id: WorkId, number: u64, message: String) {
        let Some(state) = self.works.get_mut(&id) else { return };
        if state.status != WorkStatus::Surveying(number) {
            return;
        }
        let troubles = state.trouble.as_ref().map_or(0, |(_, troubles)| *troubles) + 1;
        state.trouble = Some((message, troubles));
        // Tried again when the time has come, for as long as the job is wanted: its waiting says why.
        state.status = WorkStatus::Unbound;
        state.not_before = now + policy::back_off_ms(troubles, &mut self.generator);
        let not_before = state.not_before;
        self.schedule(not_before, Due::Work(id));
        self.touch(id);
    }

    /// Fails a work and all that depends on it.
    pub(super) fn fail_work(&mut self, id: WorkId, message: &str) {
        let mut failed = vec![id];
        while let Some(id) = failed.pop() {
            let Some(state) = self.touch(id) else { continue };
            if matches!(state.status, WorkStatus::Failed(_)) {
                continue;
            }
            state.status = WorkStatus::Failed(message.to_owned());
            self.abandon(id);
            failed.extend(self.readers.get(&id).into_iter().flatten());
        }
    }

    /// Tells everybody who works on it, or has reported, that nobody waits for them.
    pub(super) fn abandon(&mut self, id: WorkId) {
        let Some(state) = self.touch(id) else { return };
        let Abandoned { mut leases, reports } = state.abandon();
        for claim in self.claims_of(id) {
            leases.extend(self.take_claim(claim).map(|claim| (claim.unit, claim.lease)));
        }
        let stop = |(unit, Lease { worker, attempt, .. })| Effect::Stop { worker, unit, attempt };
        self.effects.extend(leases.into_iter().map(stop));
        let acknowledge = |(worker, unit, attempt)| Effect::Acknowledge { worker, unit, attempt };
        self.effects.extend(reports.into_iter().map(acknowledge));
    }
}
