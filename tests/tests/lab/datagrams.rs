//! A UDP flow whose datagrams have numbers: which pod answers the next one.

use anyhow::{Result, ensure};
use xlb_tests::lab::UdpClient;

use crate::scene::{ANSWER_TIMEOUT, Scene, pod_number};

/// A UDP socket whose datagrams have numbers.
pub struct Datagrams {
    socket: UdpClient,
    sent: usize,
    /// The pod that answered last.
    pub pod: usize,
}

impl Datagrams {
    /// A new flow from a port of its own.
    pub fn begin(scene: &Scene) -> Result<Datagrams> {
        let mut flow = Datagrams { socket: UdpClient::connect(scene.lab.client(0), scene.vip())?, sent: 0, pod: 0 };
        flow.ask()?;
        Ok(flow)
    }

    /// The pod that answers the next one.
    pub fn ask(&mut self) -> Result<usize> {
        self.sent += 1;
        let answer = self.socket.ask(&self.sent.to_string(), ANSWER_TIMEOUT)?;
        let number = answer.rsplit(' ').next();
        ensure!(number == Some(self.sent.to_string().as_str()), "{answer} for number {}", self.sent);
        self.pod = pod_number(answer.split(' ').next().unwrap_or_default())?;
        Ok(self.pod)
    }
}
