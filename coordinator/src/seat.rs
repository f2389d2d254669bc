//! The leader's seat: whether this process has it, for services that are offered all the time.

use lsa_common::id::Epoch;
use tokio::sync::watch;

use crate::driver::handle::Handle;

/// Whether this process leads.
#[derive(Clone)]
pub enum Standing {
    /// Another coordinator leads, or nobody does yet.
    By(Option<Leader>),
    /// This one leads, through that handle.
    Leading(Handle),
}

/// Another coordinator that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its epoch.
    pub epoch: Epoch,
    /// Where it is reached, if it has said so.
    pub address: Option<String>,
}

/// Why a question was not answered here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLeading {
    /// Somebody else would.
    #[error("this coordinator stands by; {}", leads(.0.as_ref()))]
    StandsBy(Option<Leader>),
    /// It has not been able to say that it leads for a while, and another one may.
    #[error("this coordinator cannot reach the bucket and does not know whether it leads; ask again")]
    Silent,
}

fn leads(leader: Option<&Leader>) -> String {
    match leader {
        None => "nobody leads yet".to_owned(),
        Some(Leader { epoch, address: None }) => format!("the one of epoch {epoch} leads"),
        Some(Leader { epoch, address: Some(address) }) => {
            format!("the one of epoch {epoch} at {address} leads")
        }
    }
}

/// A view of the seat.
#[derive(Clone)]
pub struct Seat(watch::Receiver<Standing>);

impl Seat {
    /// A seat that changes hands, beginning with nobody on it.
    pub fn vacant() -> (watch::Sender<Standing>, Self) {
        let (sender, receiver) = watch::channel(Standing::By(None));
        (sender, Self(receiver))
    }

    /// The seat of a process that leads for as long as it lives.
    pub fn taken(handle: Handle) -> Self {
        Self(watch::channel(Standing::Leading(handle)).1)
    }

    /// How this process stands now.
    pub fn standing(&self) -> Standing {
        self.0.borrow().clone()
    }

    /// Waits until that is otherwise; false once it never will be.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// The driver, to look at what it knows.
    pub fn handle(&self) -> Result<Handle, NotLeading> {
        match self.standing() {
            Standing::Leading(handle) => Ok(handle),
            Standing::By(leader) => Err(NotLeading::StandsBy(leader)),
        }
    }

    /// The driver, to have it do something.
    pub fn leading(&self) -> Result<Handle, NotLeading> {
        let handle = self.handle()?;
        if handle.identity().leads() { Ok(handle) } else { Err(NotLeading::Silent) }
    }
}
