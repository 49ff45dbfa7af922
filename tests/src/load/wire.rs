//! What clients and pods say to each other: numbers of 64 bits.

/// What a client sends: over TCP the connection's secret, then numbers of messages; over UDP a flow and a number.
pub const QUESTION_BYTES: usize = 16;
/// What a pod answers.
pub const ANSWER_BYTES: usize = 24;

/// The number of a pod's last word on a connection that it closes: nobody asked for it.
pub const GOODBYE: u64 = u64::MAX;

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Over TCP the connection's secret in its first message, and zero in all others; over UDP the flow.
    pub key: u64,
    /// The number of the message.
    pub number: u64,
}

/// A pod's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answers.
    pub pod: u64,
    /// Over TCP the secret that the pod was told when it accepted the connection; over UDP the question's flow.
    pub key: u64,
    /// The question's number.
    pub number: u64,
}

impl Question {
    /// The bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; QUESTION_BYTES] {
        bytemuck::cast([self.key.to_be(), self.number.to_be()])
    }

    /// What the bytes say.
    #[must_use]
    pub fn of_bytes(bytes: [u8; QUESTION_BYTES]) -> Question {
        let [key, number] = bytemuck::cast::<_, [u64; 2]>(bytes).map(u64::from_be);
        Question { key, number }
    }
}

impl Answer {
    /// The bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ANSWER_BYTES] {
        bytemuck::cast([self.pod.to_be(), self.key.to_be(), self.number.to_be()])
    }

    /// What the bytes say.
    #[must_use]
    pub fn of_bytes(bytes: [u8; ANSWER_BYTES]) -> Answer {
        let [pod, key, number] = bytemuck::cast::<_, [u64; 3]>(bytes).map(u64::from_be);
        Answer { pod, key, number }
    }
}
