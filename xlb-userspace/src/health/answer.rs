//! Health as HTTP: status, headers and body as kube-proxy has them, so that what asks one can ask the other.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::judge::Verdict;
use super::service::HealthPort;
use crate::http::Answer;
use crate::plan::desired::Family;

/// The moment of a request.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the agent started.
    pub now_ms: u64,
    /// On the wall clock.
    pub wall: Timestamp,
}

/// What the agent's health server answers; none: the path is not one of its own.
#[must_use]
pub fn of_agent(path: &str, verdict: &Verdict, moment: Moment) -> Option<Answer> {
    let is_fit = match path {
        "/healthz" => verdict.is_healthy && verdict.is_node_eligible,
        "/livez" => verdict.is_healthy,
        "/readyz" => verdict.is_ready,
        _ => return None,
    };
    let at = |ms: u64| {
        let ago = SignedDuration::from_millis(moment.now_ms.saturating_sub(ms) as i64);
        Value::from((moment.wall - ago).to_string())
    };
    let newest = verdict.families.values().map(|(_, synced_at_ms)| *synced_at_ms).max();
    // Old clients expect a recent value from who is well (semantics 13.1).
    let last_updated = if is_fit { Value::from(moment.wall.to_string()) } else { newest.map_or(Value::Null, at) };
    let family = |(family, (is_healthy, synced_at_ms)): (&Family, &(bool, u64))| {
        (family.to_string(), json!({ "lastUpdated": at(*synced_at_ms), "healthy": is_healthy }))
    };
    let status: Map<String, Value> = verdict.families.iter().map(family).collect();
    let mut body = json!({
        "lastUpdated": last_updated,
        "currentTime": moment.wall.to_string(),
        "healthy": verdict.is_healthy,
        "status": status,
    });
    if path == "/healthz" {
        body["nodeEligible"] = verdict.is_node_eligible.into();
    }
    Some(json_answer(is_fit, Vec::new(), &body))
}

/// What a Service's health port answers to a probe of this family, whatever it asks for (semantics 12.5).
#[must_use]
pub fn of_service(port: &HealthPort, probe: Family, is_agent_healthy: bool) -> Answer {
    let count = port.count(probe);
    let body = json!({
        "service": { "namespace": port.service.namespace, "name": port.service.name },
        "localEndpoints": count,
        "serviceProxyHealthy": is_agent_healthy,
    });
    let weight = ("X-Load-Balancing-Endpoint-Weight", count.to_string());
    json_answer(count > 0 && is_agent_healthy, vec![weight], &body)
}

/// What is answered to a path that a server does not have.
#[must_use]
pub fn not_found(paths: &str) -> Answer {
    let headers = vec![("Content-Type", "text/plain; charset=utf-8".into())];
    Answer { status: 404, headers, body: format!("not here; there is {paths}\n") }
}

/// What is answered to whoever wants to change something.
#[must_use]
pub fn read_only() -> Answer {
    let headers = vec![("Content-Type", "text/plain; charset=utf-8".into()), ("Allow", "GET, HEAD".into())];
    Answer { status: 405, headers, body: "here is nothing to change: ask with GET or HEAD\n".into() }
}

fn json_answer(is_fit: bool, mut headers: Vec<(&'static str, String)>, body: &Value) -> Answer {
    headers.insert(0, ("Content-Type", "application/json".into()));
    Answer { status: if is_fit { 200 } else { 503 }, headers, body: body.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::judge::{FamilySync, HealthState, NodeState, judge};
    use crate::model::ObjectName;

    fn moment() -> Moment {
        Moment { now_ms: 100_000, wall: "2026-01-02T03:04:05Z".parse().unwrap() }
    }

    fn verdict(queued_since_ms: Option<u64>, node: NodeState) -> Verdict {
        let mut state = HealthState::new(node);
        state.families.insert(Family::V4, FamilySync { queued_since_ms, synced_at_ms: Some(10_000) });
        judge(&state, moment().now_ms)
    }

    fn body(answer: &Answer) -> Value {
        serde_json::from_str(&answer.body).unwrap()
    }

    #[test]
    fn healthz_looks_at_the_node_and_livez_does_not() {
        let leaving = verdict(None, NodeState::absent());
        let healthz = of_agent("/healthz", &leaving, moment()).unwrap();
        let livez = of_agent("/livez", &leaving, moment()).unwrap();
        assert_eq!((healthz.status, livez.status), (503, 200));
        assert_eq!(body(&healthz)["nodeEligible"], false);
        assert!(body(&livez).get("nodeEligible").is_none());
        assert_eq!(of_agent("/readyz", &leaving, moment()).unwrap().status, 200);
    }

    #[test]
    fn who_is_well_was_updated_just_now_and_who_is_ill_when_it_was() {
        let well = of_agent("/livez", &verdict(None, NodeState::absent()), moment()).unwrap();
        assert_eq!(body(&well)["lastUpdated"], "2026-01-02T03:04:05Z");
        let ill = of_agent("/livez", &verdict(Some(20_000), NodeState::absent()), moment()).unwrap();
        let expected = json!({
            "lastUpdated": "2026-01-02T03:02:35Z",
            "currentTime": "2026-01-02T03:04:05Z",
            "healthy": false,
            "status": { "IPv4": { "lastUpdated": "2026-01-02T03:02:35Z", "healthy": false } },
        });
        assert_eq!((ill.status, body(&ill)), (503, expected));
        assert_eq!(ill.headers, [("Content-Type", "application/json".to_owned())]);
    }

    #[test]
    fn before_the_first_round_the_agent_lives_and_is_not_ready() {
        let starting = judge(&HealthState::new(NodeState::without_kubernetes()), 0);
        let status = |path| of_agent(path, &starting, moment()).map(|answer| answer.status);
        assert_eq!([status("/livez"), status("/healthz"), status("/readyz")], [Some(200), Some(200), Some(503)]);
        assert_eq!(status("/"), None);
    }

    #[test]
    fn a_health_port_says_the_real_count_also_when_the_agent_is_ill() {
        let service = ObjectName { namespace: "shop".into(), name: "web".into() };
        let port = |count| HealthPort { service: service.clone(), ready: [(Family::V4, count)].into() };
        for (count, is_agent_healthy, status) in [(2, true, 200), (0, true, 503), (7, false, 503), (0, false, 503)] {
            let answer = of_service(&port(count), Family::V4, is_agent_healthy);
            let expected = json!({
                "service": { "namespace": "shop", "name": "web" },
                "localEndpoints": count,
                "serviceProxyHealthy": is_agent_healthy,
            });
            assert_eq!((answer.status, body(&answer)), (status, expected));
            let headers =
                [("Content-Type", "application/json".into()), ("X-Load-Balancing-Endpoint-Weight", count.to_string())];
            assert_eq!(answer.headers, headers);
        }
    }
}
