//! A TCP proxy whose network can be spoiled: refused, silent, slow, lossy or cut connections, while the ends run on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// What the network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Clear,
    /// Connections end, and none can be made.
    Refused,
    /// Nothing passes, and nobody is told: a partition.
    Silent,
    /// Every piece takes its time.
    Slow,
    /// Some pieces come late, as what TCP sends again, and some never: the connection breaks.
    Lossy,
}

/// How long a piece of at most [`PIECE`] bytes takes on a slow network.
const SLOWNESS: Duration = Duration::from_millis(30);
const PIECE: usize = 16 << 10;
/// One of so many pieces comes late on a lossy network, by so much.
const LATE_ONE_IN: u64 = 16;
const LATENESS_MS: u64 = 400;
/// One of so many is lost, and the connection with it.
const LOST_ONE_IN: u64 = 64;

/// A proxy; it ends when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<(Weather, u64)>,
    luck: Arc<Luck>,
    runtime: Option<Runtime>,
}

/// What becomes of pieces on a lossy network.
struct Luck {
    generator: Mutex<ChaCha8Rng>,
    n_lost: AtomicU64,
}

enum Fate {
    Comes,
    ComesLate(Duration),
    IsLost,
}

impl Luck {
    fn draw(&self) -> Fate {
        let drawn = self.generator.lock().unwrap_or_else(PoisonError::into_inner).next_u64() >> 16;
        if drawn.is_multiple_of(LOST_ONE_IN) {
            self.n_lost.fetch_add(1, Ordering::Relaxed);
            return Fate::IsLost;
        }
        match drawn % LATE_ONE_IN {
            1 => Fate::ComesLate(Duration::from_millis(drawn / LATE_ONE_IN % LATENESS_MS)),
            _ => Fate::Comes,
        }
    }
}

impl Proxy {
    /// Passes on to `target`, whoever listens there at the time.
    pub fn to(target: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (weather, seen) = watch::channel((Weather::Clear, 0));
        let generator = Mutex::new(ChaCha8Rng::from_seed([7; 32]));
        let luck = Arc::new(Luck { generator, n_lost: AtomicU64::new(0) });
        runtime.spawn(accept(listener, target, seen, luck.clone()));
        Self { address, weather, luck, runtime: Some(runtime) }
    }

    /// How many pieces a lossy network has lost.
    pub fn losses(&self) -> u64 {
        self.luck.n_lost.load(Ordering::Relaxed)
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather, for connections that stand as well.
    pub fn set(&self, weather: Weather) {
        self.weather.send_modify(|known| known.0 = weather);
    }

    /// Ends every connection that stands.
    pub fn cut(&self) {
        self.weather.send_modify(|known| known.1 += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Seen = watch::Receiver<(Weather, u64)>;

async fn accept(listener: TcpListener, target: SocketAddr, seen: Seen, luck: Arc<Luck>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let (mut seen, luck) = (seen.clone(), luck.clone());
        tokio::spawn(async move {
            if seen.borrow_and_update().0 == Weather::Refused {
                return;
            }
            let Ok(far) = TcpStream::connect(target).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
            // Where one direction ends the other one does: as good as a broken connection.
            tokio::select! {
                () = pass(from_near, to_far, seen.clone(), &luck) => {}
                () = pass(from_far, to_near, seen.clone(), &luck) => {}
                () = ended(seen) => {}
            }
        });
    }
}

/// Until connections end.
async fn ended(mut seen: Seen) {
    let cuts = seen.borrow().1;
    // An error means that the proxy is gone.
    let _ = seen.wait_for(|(weather, now)| *weather == Weather::Refused || *now != cuts).await;
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut seen: Seen, luck: &Luck) {
    let mut piece = vec![0; PIECE];
    loop {
        let Ok(n) = from.read(&mut piece).await else { return };
        if seen.wait_for(|(weather, _)| *weather != Weather::Silent).await.is_err() {
            return;
        }
        let weather = seen.borrow().0;
        match weather {
            Weather::Slow => tokio::time::sleep(SLOWNESS).await,
            Weather::Lossy => match luck.draw() {
                Fate::Comes => {}
                Fate::ComesLate(wait) => tokio::time::sleep(wait).await,
                Fate::IsLost => return,
            },
            Weather::Clear | Weather::Refused | Weather::Silent => {}
        }
        if n == 0 || to.write_all(&piece[..n]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection through a proxy to a server that sends back what it gets.
    fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = Proxy::to(listener.local_addr().expect("a bound address"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            }
        });
        let stream = TcpStream::connect(proxy.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time");
        (proxy, stream)
    }

    fn answer(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.write_all(&[byte])?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn the_weather_changes_for_connections_that_stand() {
        let (proxy, mut stream) = echo();
        assert_eq!(answer(&mut stream, 1).expect("clear"), 1);
        proxy.set(Weather::Silent);
        assert!(answer(&mut stream, 2).is_err(), "nothing passes");
        proxy.set(Weather::Slow);
        let mut late = [0];
        stream.read_exact(&mut late).expect("what was held back comes");
        assert_eq!(late, [2]);
        proxy.cut();
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        assert!(answer(&mut stream, 3).is_err(), "it ended");
        proxy.set(Weather::Refused);
        let mut refused = TcpStream::connect(proxy.address()).expect("the proxy itself listens");
        assert!(answer(&mut refused, 4).is_err());
        proxy.set(Weather::Clear);
        let mut again = TcpStream::connect(proxy.address()).expect("it listens");
        assert_eq!(answer(&mut again, 5).expect("clear"), 5);
    }
}
