//! What the API enforces for single kinds, as far as xlb meets it.
//!
//! `ApiServer::apply` goes around these rules: old clusters hold objects that break them.

use serde_json::{Value, json};

use super::refusal::Refusal;
use super::resource::Resource;

/// Checks a write and completes the object as the server does.
pub fn check(resource: &Resource, current: Option<&Value>, object: &mut Value) -> Result<(), Refusal> {
    match resource.kind {
        "Service" => service(current, object),
        "Lease" => lease(object),
        _ => Ok(()),
    }
}

fn service(current: Option<&Value>, object: &mut Value) -> Result<(), Refusal> {
    if object.pointer("/spec/type").is_none() {
        object["spec"]["type"] = json!("ClusterIP");
    }
    let is_load_balancer = |service: &Value| service["spec"]["type"] == "LoadBalancer";
    let was_load_balancer = current.is_some_and(is_load_balancer);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if let Some(current) = current.filter(|current| is_load_balancer(current) && is_load_balancer(object))
        && current["spec"].get("loadBalancerClass") != object["spec"].get("loadBalancerClass")
    {
        return Err(Refusal::invalid("Service", &name, "spec.loadBalancerClass", "may not change once set"));
    }
    if !is_load_balancer(object) && was_load_balancer {
        object["status"] = json!({ "loadBalancer": {} });
    }
    let is_of_type = is_load_balancer(object);
    let Some(ingress) = object.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut) else {
        return Ok(());
    };
    if !is_of_type && !ingress.is_empty() {
        let rule = "Forbidden: may only be used when `spec.type` is \"LoadBalancer\"";
        return Err(Refusal::invalid("Service", &name, "status.loadBalancer.ingress", rule));
    }
    ingress.iter_mut().try_for_each(|point| ip_mode(&name, point))
}

/// An address without a mode gets VIP; a mode without an address is refused.
fn ip_mode(name: &str, point: &mut Value) -> Result<(), Refusal> {
    match (point.get("ip").is_some(), point.get("ipMode").is_some()) {
        (true, false) => point["ipMode"] = json!("VIP"),
        (false, true) => {
            let rule = "Forbidden: may not be specified when `ip` is not set";
            return Err(Refusal::invalid("Service", name, "status.loadBalancer.ingress[0].ipMode", rule));
        }
        _ => {}
    }
    Ok(())
}

/// A MicroTime has six digits after the point.
fn lease(object: &Value) -> Result<(), Refusal> {
    for field in ["acquireTime", "renewTime"] {
        let Some(time) = object["spec"][field].as_str() else { continue };
        let fraction = time.strip_suffix('Z').and_then(|time| time.split_once('.')).map_or("", |(_, digits)| digits);
        if fraction.len() != 6 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(Refusal::bad_request(format!(
                "parsing time \"{time}\" as \"2006-01-02T15:04:05.000000Z07:00\""
            )));
        }
    }
    Ok(())
}
