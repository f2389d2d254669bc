//! `moto_server`: a server of S3's semantics, written by others, as a process of its own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::process::Running;
use crate::python::venv_python;
use crate::s3_server::BUCKET;
use crate::wait::until;

const REQUIREMENT: &str = "moto[s3]==5.2.4 flask==3.1.3 flask-cors==6.0.5";
const START_LIMIT: Duration = Duration::from_secs(60);

/// A server with an empty bucket; it is killed when this is dropped.
pub struct Moto {
    address: String,
    process: Running,
}

impl Moto {
    /// Starts a server on a port of the system's choice; why not, where it cannot be installed.
    pub fn start() -> Result<Self, String> {
        let python = venv_python("moto", REQUIREMENT)?;
        let mut command = Command::new(python.with_file_name("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", "0"]).env("PYTHONUNBUFFERED", "1");
        let mut process = Running::start(command);
        let address = until("moto_server to listen", START_LIMIT, || {
            assert!(!process.has_ended(), "moto_server ended: {}", process.stderr());
            let said = process.stderr();
            let (_, rest) = said.split_once("Running on http://")?;
            Some(rest.split_whitespace().next()?.to_owned())
        });
        let moto = Self { address, process };
        let made = moto.ask(&format!("PUT /{BUCKET}"));
        assert!(made.starts_with("HTTP/1.1 200"), "no bucket could be made: {made}");
        Ok(moto)
    }

    /// The server's address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of a bucket below `prefix`; the environment must hold any keys.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint={}&region=us-east-1", self.endpoint())
    }

    /// Its process.
    pub fn process(&self) -> &Running {
        &self.process
    }

    fn ask(&self, what: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let request = format!(
            "{what} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}
