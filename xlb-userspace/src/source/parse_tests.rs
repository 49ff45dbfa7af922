//! Facts about manifest files: what is read from good ones, and what is said about bad ones.

use super::*;

const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1}\naddressType: IPv4\n\
                     endpoints: []\n";
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\n";
const OTHER: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nitems: [1, two]\n";
const KNATIVE: &str = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web}\n";

#[test]
fn objects_are_found_in_every_shape_of_file() {
    let both = "1 Service default/web, 2 EndpointSlice default/web-1";
    for (text, expected) in [
        ("".into(), ""),
        ("\n\n".into(), ""),
        ("# nothing here\n".into(), ""),
        ("---\n".into(), ""),
        ("---\n# nothing\n---\n".into(), ""),
        (WEB.into(), "1 Service default/web"),
        (WEB.replace('\n', "\r\n"), "1 Service default/web"),
        (format!("\u{feff}{WEB}"), "1 Service default/web"),
        (POLICY.into(), "1 NetworkPolicy default/deny"),
        (format!("{WEB}---\n{SLICE}"), both),
        (format!("# head\n---\n{WEB}---\n{SLICE}---\n"), both),
        (format!("%YAML 1.2\n---\n{WEB}...\n---\n{SLICE}"), both),
        (format!("---\n---\n{WEB}"), "2 Service default/web"),
        (format!("{WEB}unknown: {{field: 1}}\nstatus: {{conditions: [], other: x}}\n"), "1 Service default/web"),
        (format!("{OTHER}---\n{KNATIVE}---\n{WEB}"), "3 Service default/web (2 ignored)"),
        ("apiVersion: v1\nkind: List\n".into(), ""),
        ("apiVersion: v1\nkind: List\nitems: []\n".into(), ""),
        (
            format!("apiVersion: v1\nkind: List\nmetadata: {{}}\nitems:\n{}{}", item(WEB), item(SLICE)),
            "1 Service default/web, 1 EndpointSlice default/web-1",
        ),
        (
            format!("apiVersion: v1\nkind: List\nitems:\n{}{}", item(OTHER), item(WEB)),
            "1 Service default/web (1 ignored)",
        ),
        ("{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: web}}]}".into(), "1 Service default/web"),
        (
            "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"w\\u00e4b\"}\n}\n"
                .into(),
            "1 Service default/wäb",
        ),
    ] {
        assert_eq!(describe(&text), expected, "{text}");
    }
}

#[test]
fn a_mistake_is_told_with_file_document_line_and_what_was_expected() {
    for (text, expected) in [
        // Malformed YAML.
        (
            format!("{WEB}---\nmetadata: [\n"),
            "document 2, line 7: did not find expected node content, while parsing a flow node",
        ),
        ("kind: Service\n  name: x\n".into(), "document 1, line 2: mapping values are not allowed in this context"),
        ("kind: Service\n\tname: x\n".into(), "document 1, line 2: found a tab character that violates indentation"),
        ("kind: \"Service\n".into(), "document 1, line 2: found unexpected end of stream"),
        ("a: *b\n".into(), "document 1, line 1: unknown anchor"),
        // Not an object of Kubernetes.
        ("just text\n".into(), "document 1, line 1: invalid type: string \"just text\", expected a Kubernetes object"),
        (format!("{WEB}---\n\n- 1\n"), "document 2, line 7: invalid type: sequence, expected a Kubernetes object"),
        (
            format!("{WEB}---\n# an object\nmetadata: {{name: x}}\n"),
            "document 2, line 7: found no apiVersion or no kind, expected a Kubernetes object",
        ),
        (
            SLICE.replace("/v1", "/v1beta1"),
            "document 1, line 1: found EndpointSlice in version \"v1beta1\", expected version \"v1\"",
        ),
        // Wrong types.
        (
            format!("{SLICE}---\n{}", WEB.replace("port: 80", "port: http")),
            "document 2, line 10: spec.ports[0].port: invalid type: string \"http\", expected i32",
        ),
        (
            WEB.replace("[{port: 80}]", "80"),
            "document 1, line 4: spec.ports: invalid type: integer `80`, expected a sequence",
        ),
        (
            WEB.replace("{name: web}", "web"),
            "document 1, line 3: metadata: invalid type: string \"web\", expected ObjectMeta",
        ),
        (
            format!("apiVersion: v1\nkind: List\nitems:\n{}{}", item(SLICE), item(&WEB.replace("80", "x"))),
            "document 1, line 12: items[1].spec.ports[0].port: invalid type: string \"x\", expected i32",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: {a: b}\n".into(),
            "document 1, line 3: items: invalid type: map, expected a sequence",
        ),
        // Wrong values.
        (
            format!("{SLICE}---\n{}", WEB.replace("80", "0")),
            "document 2, line 7: spec.ports[0].port: found 0, expected a port from 1 to 65535",
        ),
        // The same twice.
        (
            format!("{WEB}---\n{SLICE}---\n{WEB}"),
            "document 3: Service default/web is in document 1 too; remove one of the two",
        ),
    ] {
        let found = describe(&text);
        assert!(found.starts_with(&format!("web.yaml, {expected}")), "{text}\nsays: {found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
}

#[test]
fn every_document_that_is_wrong_is_told_of() {
    let text = format!("a: [\n---\n{WEB}---\n- 1\n---\n\nb: }}\n");
    let places: Vec<String> = parse_file("web.yaml", &text).unwrap_err().iter().map(ManifestError::place).collect();
    assert_eq!(
        places,
        ["web.yaml, document 1, line 2", "web.yaml, document 3, line 8", "web.yaml, document 4, line 11"]
    );
}

#[test]
fn a_mistake_can_be_shown_as_a_refusal() {
    let error = parse_file("web.yaml", "just text").unwrap_err().remove(0);
    assert_eq!(error.refusal().object, "web.yaml, document 1, line 1");
    assert_eq!(error.refusal().why, "invalid type: string \"just text\", expected a Kubernetes object");
}

/// The objects, each after the number of its document, or the errors.
fn describe(text: &str) -> String {
    let parsed = match parse_file("web.yaml", text) {
        Ok(parsed) => parsed,
        Err(errors) => return errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    let objects: Vec<String> =
        parsed.objects.iter().map(|located| format!("{} {}", located.document, located.object.key())).collect();
    let ignored = if parsed.ignored > 0 { format!(" ({} ignored)", parsed.ignored) } else { String::new() };
    objects.join(", ") + &ignored
}

/// A document as an item of a list.
fn item(document: &str) -> String {
    let indented = document.trim_end().replace('\n', "\n  ");
    format!("- {indented}\n")
}
