//! What is done to the system.

use std::time::Duration;

use lsa_tests::process::send;
use lsa_tests::proxy::Weather;
use nix::sys::signal::Signal;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use super::field::{Field, Mend, N_COORDINATORS, N_WORKERS};

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// SIGKILL, and a start after a while.
    Kill(usize),
    /// SIGTERM, and a start after a while.
    Terminate(usize),
    /// SIGSTOP for longer than a lease, or than a leader may be silent, then SIGCONT.
    Stop(usize),
    /// SIGKILL to every worker.
    KillWorkers,
    /// The network to the store.
    ToStore(usize, Weather),
    /// The network to a coordinator.
    ToCoordinator(usize, Weather),
    /// Every connection of a member is cut.
    Cut(usize),
    /// The store's process is stopped for a while.
    StopStore,
}

fn below(generator: &mut ChaCha8Rng, n: usize) -> usize {
    usize::try_from(generator.next_u64() % n as u64).expect("below a usize")
}

impl Harm {
    /// Draws one.
    pub fn draw(generator: &mut ChaCha8Rng) -> Self {
        let weather = [Weather::Refused, Weather::Silent, Weather::Slow][below(generator, 3)];
        let coordinator = below(generator, N_COORDINATORS);
        let worker = N_COORDINATORS + below(generator, N_WORKERS);
        let anyone = below(generator, N_COORDINATORS + N_WORKERS);
        match below(generator, 12) {
            0 | 1 => Self::Kill(worker),
            2 => Self::Kill(coordinator),
            3 => Self::Terminate(anyone),
            4 => Self::Stop(worker),
            5 => Self::Stop(coordinator),
            6 => Self::KillWorkers,
            7 | 8 => Self::ToStore(anyone, weather),
            9 => Self::ToCoordinator(coordinator, weather),
            10 => Self::Cut(anyone),
            _ => Self::StopStore,
        }
    }

    /// Does it, and has it mended later.
    pub fn befall(self, field: &mut Field, generator: &mut ChaCha8Rng) {
        let wait = Duration::from_millis(300 + generator.next_u64() % 3_000);
        match self {
            Self::Kill(place) => {
                field.kill(place);
                field.mend_after(wait, Mend::Start(place));
            }
            Self::Terminate(place) => {
                if let Some(pid) = field.pid(place) {
                    send(pid, Signal::SIGTERM);
                }
                // It may take its grace.
                field.mend_after(wait + Duration::from_secs(3), Mend::Start(place));
            }
            Self::Stop(place) => {
                let longer = if field.is_coordinator(place) { 12 } else { 5 };
                if let Some(pid) = field.pid(place) {
                    send(pid, Signal::SIGSTOP);
                    field.mend_after(wait + Duration::from_secs(longer), Mend::Continue(pid));
                }
            }
            Self::KillWorkers => {
                for place in N_COORDINATORS..N_COORDINATORS + N_WORKERS {
                    field.kill(place);
                    field.mend_after(wait, Mend::Start(place));
                }
            }
            Self::ToStore(place, weather) => {
                field.members[place].to_store.set(weather);
                field.mend_after(wait * 2, Mend::ToStore(place));
            }
            Self::ToCoordinator(place, weather) => {
                if let Some(to_it) = &field.members[place].to_it {
                    to_it.set(weather);
                }
                field.mend_after(wait * 2, Mend::ToIt(place));
            }
            Self::Cut(place) => {
                field.members[place].to_store.cut();
                if let Some(to_it) = &field.members[place].to_it {
                    to_it.cut();
                }
            }
            Self::StopStore => {
                if let Some(pid) = field.store_pid() {
                    send(pid, Signal::SIGSTOP);
                    field.mend_after(wait, Mend::Continue(pid));
                }
            }
        }
    }
}
