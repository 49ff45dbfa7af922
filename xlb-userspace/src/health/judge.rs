//! The agent's own health (semantics chapter 13): are the maps what they should be, and may this node get new flows?

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::desired::Family;

/// How long an update may wait for a round that completes; kube-proxy's default.
pub const SYNC_TIMEOUT_MS: u64 = 60_000;

/// The taint by which the cluster autoscaler says that it is about to take the node away.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What the judgement is made of. Moments are milliseconds since the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthState {
    /// The rounds of each family.
    pub families: BTreeMap<Family, FamilySync>,
    /// This node's Node object.
    pub node: NodeState,
    /// How long an update may wait.
    pub timeout_ms: u64,
    /// Whether this agent's programs were refused, and those of before serve.
    pub are_programs_refused: bool,
}

/// What became of a family's updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilySync {
    /// Since when the oldest update waits that no round has completed yet.
    pub queued_since_ms: Option<u64>,
    /// When a round completed last; none: never.
    pub synced_at_ms: Option<u64>,
}

/// What matters of this node's Node object for new flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Whether there is one.
    pub exists: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// The keys of its taints.
    pub taints: Vec<String>,
}

impl NodeState {
    /// Without Kubernetes there is no Node object that could speak against this node.
    #[must_use]
    pub fn without_kubernetes() -> Self {
        Self { exists: true, is_deleting: false, taints: Vec::new() }
    }

    /// There is no Node object of this name, or it is not known yet.
    #[must_use]
    pub fn absent() -> Self {
        Self { exists: false, ..Self::without_kubernetes() }
    }

    fn is_eligible(&self) -> bool {
        self.exists && !self.is_deleting && !self.taints.iter().any(|taint| taint == TO_BE_DELETED)
    }
}

impl Default for NodeState {
    fn default() -> Self {
        Self::absent()
    }
}

impl HealthState {
    /// Before the first round: a round does both families at once.
    #[must_use]
    pub fn new(node: NodeState) -> Self {
        let families = Family::ALL.map(|family| (family, FamilySync::default()));
        Self { families: families.into(), node, timeout_ms: SYNC_TIMEOUT_MS, are_programs_refused: false }
    }

    /// An update waits for a round.
    pub fn queue(&mut self, now_ms: u64) {
        for family in self.families.values_mut() {
            family.queued_since_ms.get_or_insert(now_ms);
        }
    }

    /// A round completed: the maps hold everything that was queued before it. A family that this node does not serve is
    /// not judged.
    pub fn complete(&mut self, now_ms: u64, served: &BTreeSet<Family>) {
        for (family, sync) in &mut self.families {
            *sync = FamilySync { queued_since_ms: None, synced_at_ms: served.contains(family).then_some(now_ms) };
        }
    }
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Each family that is judged: whether it is healthy, and when it was in sync last.
    pub families: BTreeMap<Family, (bool, u64)>,
    /// Whether no family is unhealthy.
    pub is_healthy: bool,
    /// Whether this node may get new flows.
    pub is_node_eligible: bool,
    /// Whether a round has completed and none is late, and this agent's own programs serve.
    pub is_ready: bool,
}

/// Judges. A family whose first round has not completed is not judged: an agent that starts is not ill.
#[must_use]
pub fn judge(state: &HealthState, now_ms: u64) -> Verdict {
    let is_late = |since_ms: u64| now_ms.saturating_sub(since_ms) >= state.timeout_ms;
    let judged = state.families.iter().filter_map(|(&family, sync)| {
        let synced_at_ms = sync.synced_at_ms?;
        Some((family, (!sync.queued_since_ms.is_some_and(is_late), synced_at_ms)))
    });
    let families: BTreeMap<_, _> = judged.collect();
    let is_healthy = families.values().all(|(is_healthy, _)| *is_healthy);
    let is_ready = is_healthy && !families.is_empty() && !state.are_programs_refused;
    Verdict { families, is_healthy, is_node_eligible: state.node.is_eligible(), is_ready }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 4_000_000;

    /// Seconds since the oldest queued update, seconds since the last round.
    type Sync = (Option<u64>, Option<u64>);
    const IDLE: Sync = (None, Some(0));

    fn state(families: [Sync; 2], timeout_s: u64) -> HealthState {
        let ago = |seconds: u64| NOW_MS - seconds * 1000;
        let sync =
            |(queued, synced): Sync| FamilySync { queued_since_ms: queued.map(ago), synced_at_ms: synced.map(ago) };
        HealthState {
            families: Family::ALL.into_iter().zip(families.map(sync)).collect(),
            node: NodeState::without_kubernetes(),
            timeout_ms: timeout_s * 1000,
            are_programs_refused: false,
        }
    }

    #[test]
    fn an_update_that_waited_for_the_timeout_makes_the_agent_unhealthy() {
        for (name, families, timeout_s, is_healthy) in [
            ("PHC-001", [IDLE, IDLE], 10, true),
            ("PHC-002 idle for long", [(None, Some(3600)), (None, Some(3600))], 10, true),
            ("PHC-003 one family late", [(Some(25), Some(30)), IDLE], 10, false),
            ("PHC-005 both late", [(Some(25), Some(30)), (Some(25), Some(30))], 10, false),
            ("PHC-006 queued, not late", [(Some(5), Some(30)), IDLE], 10, true),
            ("PHC-007 exactly at the timeout", [(Some(10), Some(30)), IDLE], 10, false),
            ("PHC-015 default timeout", [(Some(59), Some(99)), IDLE], 60, true),
            ("default timeout reached", [(Some(60), Some(99)), IDLE], 60, false),
            ("PHC-016 never synced", [IDLE, (Some(300), None)], 10, true),
        ] {
            let verdict = judge(&state(families, timeout_s), NOW_MS);
            assert_eq!(verdict.is_healthy, is_healthy, "{name}");
            assert!(verdict.is_node_eligible, "{name}");
        }
    }

    #[test]
    fn the_node_is_eligible_unless_it_is_unknown_leaving_or_about_to_be_deleted() {
        let node = |exists, is_deleting, taint: &str| NodeState { exists, is_deleting, taints: vec![taint.into()] };
        for (name, node, is_eligible) in [
            ("PHC-008 another taint", node(true, false, "other"), true),
            ("PHC-009 autoscaler", node(true, false, "ToBeDeletedByClusterAutoscaler"), false),
            ("PHC-010 deleting", node(true, true, "other"), false),
            ("PHC-011 unknown", NodeState::absent(), false),
            ("without Kubernetes", NodeState::without_kubernetes(), true),
        ] {
            let verdict = judge(&HealthState { node, ..state([IDLE, IDLE], 10) }, NOW_MS);
            assert_eq!(verdict.is_node_eligible, is_eligible, "{name}");
            assert!(verdict.is_healthy, "{name}");
        }
    }

    #[test]
    fn the_success_of_one_family_does_not_cure_the_other() {
        let verdict = judge(&state([(Some(25), Some(30)), IDLE], 10), NOW_MS);
        let healthy: Vec<_> =
            verdict.families.into_iter().map(|(family, (is_healthy, _))| (family, is_healthy)).collect();
        assert_eq!(healthy, [(Family::V4, false), (Family::V6, true)]);
    }

    #[test]
    fn a_family_that_the_node_does_not_serve_is_not_judged() {
        let mut state = HealthState::new(NodeState::without_kubernetes());
        state.queue(0);
        state.complete(10, &[Family::V4].into());
        let verdict = judge(&state, 10 * SYNC_TIMEOUT_MS);
        assert_eq!(verdict.families, [(Family::V4, (true, 10))].into());
        assert!(verdict.is_ready);
    }

    /// Traffic is served as before: only who replaces one version by another must not go on to the next node.
    #[test]
    fn an_agent_whose_programs_are_refused_is_healthy_and_not_ready() {
        let refused = HealthState { are_programs_refused: true, ..state([IDLE, IDLE], 10) };
        let verdict = judge(&refused, NOW_MS);
        assert_eq!((verdict.is_healthy, verdict.is_node_eligible, verdict.is_ready), (true, true, false));
    }

    #[test]
    fn ready_begins_with_the_first_completed_round_and_ends_when_one_is_late() {
        let mut state = HealthState::new(NodeState::without_kubernetes());
        let ready = |state: &HealthState, now_ms| judge(state, now_ms).is_ready;
        let served = Family::ALL.into();
        state.queue(0);
        assert!(!ready(&state, 1) && judge(&state, SYNC_TIMEOUT_MS).is_healthy, "starting is no illness");
        state.complete(10, &served);
        assert!(ready(&state, 10 * SYNC_TIMEOUT_MS), "idle for ever");
        state.queue(1000);
        state.queue(50_000);
        assert!(ready(&state, 1000 + SYNC_TIMEOUT_MS - 1));
        assert!(!ready(&state, 1000 + SYNC_TIMEOUT_MS), "the oldest update counts");
        state.complete(70_000, &served);
        assert!(ready(&state, 70_001));
    }
}
