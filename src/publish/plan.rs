//! What has to move: a pure function of the layers and of what the repository has already.

use std::collections::HashSet;

use crate::event::{PlannedLayer, PlannedTag, PushPlan, PushStep};
use crate::oci::Digest;

/// What is known of a layer before anything moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// A name for people.
    pub name: String,
    /// The digest, if it is known before the bytes are made.
    pub digest: Option<Digest>,
    /// Compressed bytes; the most that there can be while the digest is not known.
    pub size: u64,
    /// Whether the bytes come from the base's registry rather than from here.
    pub is_relayed: bool,
    /// Whether another repository of the same registry may lend it.
    pub is_mountable: bool,
    /// Whether the repository has it.
    pub is_present: bool,
}

/// Decides for each layer how it gets into `repository` (`HOST/REPOSITORY`).
#[must_use]
pub fn plan(repository: &str, layers: &[Known], digest: Option<Digest>, tags: Vec<PlannedTag>) -> PushPlan {
    let mut plan = PushPlan {
        repository: repository.to_owned(),
        creates_repository: false,
        digest,
        tags,
        layers: Vec::new(),
        reused_bytes: 0,
        mounted_bytes: 0,
        relayed_bytes: 0,
        uploaded_bytes: 0,
        at_most: false,
    };
    let mut planned = HashSet::new();
    for layer in layers {
        // The same bytes twice in an image move once.
        let is_repeated = layer.digest.is_some_and(|digest| !planned.insert(digest));
        let step = match layer {
            _ if is_repeated => PushStep::Reuse,
            Known { is_present: true, .. } => PushStep::Reuse,
            Known { is_mountable: true, .. } => PushStep::Mount,
            Known { is_relayed: true, .. } => PushStep::Relay,
            _ => PushStep::Upload,
        };
        let total = match step {
            PushStep::Reuse => &mut plan.reused_bytes,
            PushStep::Mount => &mut plan.mounted_bytes,
            PushStep::Relay => &mut plan.relayed_bytes,
            PushStep::Upload => &mut plan.uploaded_bytes,
        };
        if !is_repeated {
            *total = total.saturating_add(layer.size);
        }
        let at_most = layer.digest.is_none();
        plan.at_most |= at_most && step == PushStep::Upload;
        let (name, digest, size) = (layer.name.clone(), layer.digest, layer.size);
        plan.layers.push(PlannedLayer { name, digest, step, size, at_most });
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(content: &str, size: u64) -> Known {
        Known {
            name: content.to_owned(),
            digest: Some(Digest::of(content.as_bytes())),
            size,
            is_relayed: false,
            is_mountable: false,
            is_present: false,
        }
    }

    #[test]
    fn each_layer_takes_the_shortest_way() {
        use PushStep::{Mount, Relay, Reuse, Upload};
        let here = layer("x", 8);
        for (known, step) in [
            (here.clone(), Upload),
            (Known { is_relayed: true, ..here.clone() }, Relay),
            (Known { is_mountable: true, ..here.clone() }, Mount),
            (Known { is_mountable: true, is_relayed: true, ..here.clone() }, Mount),
            (Known { is_present: true, is_mountable: true, is_relayed: true, ..here.clone() }, Reuse),
            // What is not known yet may be there by then.
            (Known { digest: None, ..here.clone() }, Upload),
            (Known { digest: None, is_present: true, ..here.clone() }, Reuse),
        ] {
            let plan = plan("host/repository", std::slice::from_ref(&known), None, Vec::new());
            assert_eq!(plan.layers[0].step, step, "{known:?}");
            let bytes = [plan.reused_bytes, plan.mounted_bytes, plan.relayed_bytes, plan.uploaded_bytes];
            let expected = [Reuse, Mount, Relay, Upload].map(|other| if other == step { 8 } else { 0 });
            assert_eq!(bytes, expected, "{known:?}");
            assert_eq!(plan.layers[0].at_most, known.digest.is_none(), "{known:?}");
            assert_eq!(plan.at_most, known.digest.is_none() && step == Upload, "{known:?}");
        }
    }

    #[test]
    fn the_same_bytes_twice_move_once() {
        let plan = plan("host/repository", &[layer("a", 5), layer("b", 7), layer("a", 5)], None, Vec::new());
        let steps: Vec<_> = plan.layers.iter().map(|layer| layer.step).collect();
        assert_eq!(steps, [PushStep::Upload, PushStep::Upload, PushStep::Reuse]);
        assert_eq!((plan.uploaded_bytes, plan.reused_bytes), (12, 0));
    }
}
