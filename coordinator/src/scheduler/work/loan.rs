//! Lending the units of a work: what is ready, who has what, until when.

use lsa_common::failure::FailureClass;
use lsa_common::id::{AttemptId, WorkerId};
use lsa_common::time::Millis;
use lsa_common::unit::Unit as Payload;

use super::unit::PastFailure;
use super::{Lease, Unit, UnitStatus, WorkState};

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
            UnitStatus::Leased(held) => {
                let same = held.attempt == lease.attempt;
                if same {
                    held.deadline = lease.deadline;
                }
                same
            }
            UnitStatus::Committing(committing) => {
                let of_report = committing.commit.report.attempt == lease.attempt;
                let other = committing.other_lease().is_some_and(|other| other.attempt == lease.attempt);
                if other {
                    committing.lease = Some(lease.clone());
                }
                let waiting = unit.aside().map(|aside| aside.waiting.as_slice()).unwrap_or_default();
                of_report || other || waiting.iter().any(|report| report.attempt == lease.attempt)
            }
            UnitStatus::Done => false,
        }
    }

    fn begin_lease(&mut self, index: u32, lease: Lease) {
        let Some(unit) = self.units.get_mut(&index) else { return };
        unit.attempts += 1;
        self.set(index, UnitStatus::Leased(Box::new(lease)));
    }

    /// Extends a lease; false where `attempt` does not hold it.
    pub fn renew(&mut self, index: u32, attempt: AttemptId, deadline: Millis, progress: (u64, u64)) -> bool {
        let Some(unit) = self.units.get_mut(&index) else { return false };
        let lease = match &mut unit.status {
            UnitStatus::Leased(lease) => Some(&mut **lease),
            UnitStatus::Committing(committing) => {
                if committing.commit.report.attempt == attempt {
                    return true;
                }
                committing.lease.as_mut()
            }
            UnitStatus::Ready | UnitStatus::Done => None,
        };
        match lease.filter(|lease| lease.attempt == attempt) {
            Some(lease) => {
                lease.deadline = deadline;
                lease.progress = progress;
                true
            }
            None => false,
        }
    }

    /// Ends the lease of a unit if `attempt` has it; the unit is ready then, and the caller may delay it.
    pub fn end_lease(&mut self, index: u32, attempt: AttemptId) -> Option<Lease> {
        let unit = self.units.get_mut(&index)?;
        match &mut unit.status {
            UnitStatus::Leased(lease) if lease.attempt == attempt => {
                match self.set(index, UnitStatus::Ready)? {
                    UnitStatus::Leased(lease) => Some(*lease),
                    UnitStatus::Ready | UnitStatus::Committing(_) | UnitStatus::Done => None,
                }
            }
            UnitStatus::Committing(committing) => {
                // Another one's report decides; if it is refused, the unit is free.
                if let Some(other) = committing.other_lease().filter(|other| other.attempt == attempt) {
                    self.freed.push(other.worker.clone());
                    committing.lease = None;
                }
                None
            }
            UnitStatus::Leased(_) | UnitStatus::Ready | UnitStatus::Done => None,
        }
    }

    /// The attempt under which a worker has a unit.
    pub fn attempt_of(&self, index: u32, worker: &WorkerId) -> Option<AttemptId> {
        let held = self.units.get(&index)?.status.held()?;
        (held.worker == *worker).then_some(held.attempt)
    }

    /// Until when `attempt` has the unit, if it has it.
    pub fn deadline_of(&self, index: u32, attempt: AttemptId) -> Option<Millis> {
        let held = self.units.get(&index)?.status.held()?;
        (held.attempt == attempt).then_some(held.deadline)
    }

    /// Live leases.
    pub fn leases(&self) -> impl Iterator<Item = (u32, &Unit, &Lease)> {
        let leased = |index: &u32| {
            let unit = self.units.get(index)?;
            Some((*index, unit, unit.lease()?))
        };
        self.busy.iter().filter_map(leased)
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
