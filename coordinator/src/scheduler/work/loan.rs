//! Lending the units of a work: what is ready, who has what, until when.

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, WorkerId};
use lsa_common::time::Millis;
use lsa_common::unit::Unit as Payload;

use super::unit::PastFailure;
use super::{Lease, Unit, UnitStatus, WorkState};
use crate::scheduler::policy;

/// What is kept of a reason: it is told once more when the unit is given up, beside the others.
const REASON_CHARS_MAX: usize = 1_000;

impl WorkState {
    /// Whether a unit could be lent.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Units that could be lent, in the order in which they are.
    pub(in crate::scheduler) fn ready(&self) -> impl ExactSizeIterator<Item = u32> {
        self.ready.iter().copied()
    }

    /// How many units workers have.
    pub fn n_leased(&self) -> u64 {
        self.n_leased
    }

    /// Lends a unit that is ready: what to do, and under which attempt in number.
    pub fn lend(&mut self, index: u32, lease: Lease) -> Option<(Payload, u32)> {
        let payload = self.payload(index).filter(|_| self.ready.contains(&index))?;
        self.begin_lease(index, lease);
        Some((payload, self.units.get(&index)?.attempts))
    }

    /// Takes over a lease that an earlier coordinator gave; false where the unit is not to be had.
    pub fn adopt(&mut self, index: u32, lease: Lease) -> bool {
        let Some(unit) = self.units.get_mut(&index) else { return false };
        match &mut unit.status {
            UnitStatus::Ready => {
                let usable = unit.recorded != Some(lease.attempt);
                if usable {
                    self.begin_lease(index, lease);
                }
                usable
            }
            UnitStatus::Leased(leases) => {
                let held = leases.iter_mut().find(|held| held.attempt == lease.attempt);
                held.map(|held| held.deadline = lease.deadline).is_some()
            }
            UnitStatus::Committing(committing) => {
                let of_report = committing.commit.report.attempt == lease.attempt;
                let mut others = committing.leases.iter_mut().filter(|_| !of_report);
                let other = others.find(|other| other.attempt == lease.attempt);
                let is_other = other.map(|other| other.deadline = lease.deadline).is_some();
                let waiting = unit.aside().map(|aside| aside.waiting.as_slice()).unwrap_or_default();
                of_report || is_other || waiting.iter().any(|report| report.attempt == lease.attempt)
            }
            UnitStatus::Done => false,
        }
    }

    fn begin_lease(&mut self, index: u32, lease: Lease) {
        let Some(unit) = self.units.get_mut(&index) else { return };
        unit.attempts += 1;
        self.set(index, UnitStatus::Leased(vec![lease]));
    }

    /// Extends a lease; false where `attempt` does not hold it.
    pub fn renew(&mut self, index: u32, attempt: AttemptId, deadline: Millis, progress: (u64, u64)) -> bool {
        let Some(unit) = self.units.get_mut(&index) else { return false };
        let leases = match &mut unit.status {
            UnitStatus::Leased(leases) => leases,
            UnitStatus::Committing(committing) => {
                if committing.commit.report.attempt == attempt {
                    return true;
                }
                &mut committing.leases
            }
            UnitStatus::Ready | UnitStatus::Done => return false,
        };
        let Some(lease) = leases.iter_mut().find(|lease| lease.attempt == attempt) else { return false };
        lease.deadline = deadline;
        lease.progress = progress;
        true
    }

    /// Ends the lease of a unit if `attempt` has it. Unless another worker has it too the unit is ready then, and the
    /// caller may delay it.
    pub fn end_lease(&mut self, index: u32, attempt: AttemptId) -> Option<Lease> {
        let unit = self.units.get_mut(&index)?;
        match &mut unit.status {
            UnitStatus::Leased(leases) => {
                let ended = leases.iter().find(|lease| lease.attempt == attempt)?.clone();
                let mut left = leases.clone();
                left.retain(|lease| lease.attempt != attempt);
                let status = if left.is_empty() { UnitStatus::Ready } else { UnitStatus::Leased(left) };
                self.set(index, status);
                Some(ended)
            }
            UnitStatus::Committing(committing) => {
                // Another one's report decides; if it is refused, the unit is free.
                if committing.commit.report.attempt != attempt {
                    let ended = committing.leases.extract_if(.., |lease| lease.attempt == attempt);
                    self.freed.extend(ended.map(|lease| lease.worker));
                }
                None
            }
            UnitStatus::Ready | UnitStatus::Done => None,
        }
    }

    /// The attempt under which a worker has a unit.
    pub fn attempt_of(&self, index: u32, worker: &WorkerId) -> Option<AttemptId> {
        let mut held = self.units.get(&index)?.status.held();
        held.find(|held| held.worker == *worker).map(|held| held.attempt)
    }

    /// Until when `attempt` has the unit, if it has it.
    pub fn deadline_of(&self, index: u32, attempt: AttemptId) -> Option<Millis> {
        let mut held = self.units.get(&index)?.status.held();
        held.find(|held| held.attempt == attempt).map(|held| held.deadline)
    }

    /// Units with live leases.
    pub fn leased(&self) -> impl Iterator<Item = (u32, &Unit)> {
        let units = self.busy.iter().filter_map(|index| Some((*index, self.units.get(index)?)));
        units.filter(|(_, unit)| !unit.leases().is_empty())
    }

    /// When the unit that one worker has had longest lags behind its peers: it may be lent to another one as well then.
    /// Never while there is something that nobody has.
    pub(in crate::scheduler) fn lags_at(&self) -> Option<Millis> {
        let (since, _) = self.alone.first()?;
        Some(*since + self.lags_after_ms()?)
    }

    /// Units that lag.
    pub(in crate::scheduler) fn lagging(&self, now: Millis) -> impl Iterator<Item = u32> {
        let after = self.lags_after_ms();
        let lags = move |(since, _): &&(Millis, u32)| after.is_some_and(|after| *since + after <= now);
        self.alone.iter().take_while(lags).map(|(_, index)| *index)
    }

    fn lags_after_ms(&self) -> Option<u64> {
        let may = self.ready.is_empty() && self.pace_ms.n() >= policy::STRAGGLER_PEERS_MIN;
        self.pace_ms.get().filter(|_| may).map(policy::straggles_after_ms)
    }

    /// Lends a unit to a second worker.
    pub fn lend_again(&mut self, index: u32, lease: Lease) -> Option<(Payload, u32)> {
        let payload = self.payload(index)?;
        let unit = self.units.get_mut(&index)?;
        let UnitStatus::Leased(leases) = &unit.status else { return None };
        let [first] = leases.as_slice() else { return None };
        let both = vec![first.clone(), lease];
        unit.attempts += 1;
        let attempt_number = unit.attempts;
        self.set(index, UnitStatus::Leased(both));
        Some((payload, attempt_number))
    }

    /// Notes how long a unit took that is done.
    pub fn count_pace(&mut self, ran_ms: u64) {
        self.pace_ms.add(ran_ms);
    }

    /// Puts off a unit that is ready; false where it is not.
    pub fn delay(&mut self, index: u32, not_before: Millis) -> bool {
        let was_ready = self.ready.remove(&index);
        if was_ready {
            self.delayed.insert(index, not_before);
        }
        was_ready
    }

    /// Has a unit that was put off lent again, once its time has come.
    pub fn wake(&mut self, now: Millis, index: u32) {
        if self.delayed.get(&index).is_some_and(|due| *due <= now) {
            self.delayed.remove(&index);
            self.ready.insert(index);
        }
    }

    /// Charges the unit with a failed attempt; the number of charges so far.
    pub fn charge(&mut self, at: Millis, index: u32, worker: &WorkerId, message: &str) -> Option<u32> {
        let unit = self.units.get_mut(&index)?;
        unit.charged += 1;
        let message = message.chars().take(REASON_CHARS_MAX).collect();
        unit.aside_mut().failures.push(PastFailure { at, worker: worker.clone(), message });
        Some(unit.charged)
    }

    /// Why each attempt that was charged failed, for a person.
    pub fn reasons(&self, index: u32) -> String {
        let failures = self.units.get(&index).and_then(Unit::aside).map(|aside| aside.failures.as_slice());
        let reason = |(number, failure): (usize, &PastFailure)| {
            format!("attempt {} by {}: {}", number + 1, failure.worker, failure.message)
        };
        let reasons: Vec<String> = failures.unwrap_or_default().iter().enumerate().map(reason).collect();
        reasons.join("; ")
    }

    /// Notes that a worker died of the unit.
    pub fn fault(&mut self, index: u32, worker: &WorkerId) {
        if let Some(unit) = self.units.get_mut(&index) {
            unit.aside_mut().faulted_by.insert(worker.clone());
        }
    }

    /// What a failure means that another attempt could mend, if it were not for the workers that died of the unit: a
    /// crash that two different ones met is a defect.
    pub fn class_of_crash(&self, index: u32) -> FailureClass {
        let aside = self.units.get(&index).and_then(Unit::aside);
        match aside.map_or(0, |aside| aside.faulted_by.len()) {
            0 | 1 => FailureClass::Retry,
            _ => FailureClass::Reject,
        }
    }
}
