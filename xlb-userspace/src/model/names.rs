//! Names of nodes, each kept once: many endpoints are on one node.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::objects::Endpoint;

/// The names that endpoints have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNames(BTreeSet<Arc<str>>);

impl NodeNames {
    /// Lets these endpoints share the names that others have already.
    pub fn share(&mut self, endpoints: &mut [Endpoint]) {
        for name in endpoints.iter_mut().filter_map(|endpoint| endpoint.node_name.as_mut()) {
            match self.0.get(name) {
                Some(known) => *name = known.clone(),
                None => drop(self.0.insert(name.clone())),
            }
        }
    }

    /// Forgets those names of endpoints that are gone which no other endpoint has.
    pub fn release(&mut self, endpoints: Vec<Endpoint>) {
        for name in endpoints.into_iter().filter_map(|endpoint| endpoint.node_name) {
            // This one and the set's own.
            if Arc::strong_count(&name) == 2 {
                self.0.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::endpoints;

    #[test]
    fn a_name_is_kept_once_and_as_long_as_an_endpoint_has_it() {
        let mut names = NodeNames::default();
        let [mut one, mut other] = ["10.1.0.1, 10.1.0.2, 10.1.0.3 remote", "10.1.0.4"].map(endpoints);
        names.share(&mut one);
        names.share(&mut other);
        let shared =
            |a: &Endpoint, b: &Endpoint| Arc::ptr_eq(a.node_name.as_ref().unwrap(), b.node_name.as_ref().unwrap());
        assert!(shared(&one[0], &one[1]) && shared(&one[0], &other[0]) && names.0.len() == 2);

        names.release(one);
        assert!(names.0.iter().map(|name| &**name).eq(["node-a"]));
        names.release(other);
        assert_eq!(names, NodeNames::default());
    }
}
