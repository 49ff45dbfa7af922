//! Running a client to its end.

use anyhow::{Context, Result};
use xlb_tests::lab::Namespace;

/// Seconds after which a client that does not end has failed: more than any needs on a busy machine.
const CLIENT_TIMEOUT_S: &str = "120";

/// What a program printed that ended well, in time.
pub fn run(place: &Namespace, program: &str, arguments: &[&str]) -> Result<String> {
    place.output("timeout", &[&["--kill-after=2", CLIENT_TIMEOUT_S, program], arguments].concat())
}

/// What curl printed.
pub fn curl(place: &Namespace, arguments: &[&str]) -> Result<String> {
    run(place, "curl", &[&["--silent", "--show-error", "--fail"], arguments].concat())
}

/// Answer after answer, split into words: who served, whom it saw, and the ends of the connection as curl has them.
pub fn who(place: &Namespace, url: &str, arguments: &[&str]) -> Result<Who> {
    let ends = ["--write-out", "%{remote_ip} %{local_ip}:%{local_port}", url];
    let text = curl(place, &[arguments, &ends].concat())?;
    let mut words = text.split_whitespace().map(str::to_owned);
    let mut word = || words.next().with_context(|| format!("curl {url} printed {text:?}"));
    Ok(Who { pod: word()?, client_as_seen: word()?, server: word()?, client: word()? })
}

/// One answer of nginx's first page.
#[derive(Debug)]
pub struct Who {
    pub pod: String,
    /// The pod's view of the client.
    pub client_as_seen: String,
    /// The client's view of the server.
    pub server: String,
    /// The client's own end.
    pub client: String,
}
