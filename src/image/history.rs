//! The history of an image config, which must agree with its layers.
//!
//! Bases come with none (AWS's own say `null`), with too few entries or too many, and tools count: a history whose
//! entries without `empty_layer` are not as many as the layers makes Docker and podman refuse the image.

use serde_json::{Map, Value, json};

use crate::layer::{Layer, Origin};

/// The history of `layers` (the base's first) over what the base's config says of its own.
///
/// `created` is RFC 3339. Nothing in our entries depends on the machine or the moment.
#[must_use]
pub(super) fn extend(base: &Value, layers: &[Layer], created: &str) -> Vec<Value> {
    let base_layers = layers.iter().filter(|layer| layer.origin == Origin::Base).count();
    let mut history = repair(base, base_layers, created);
    let ours = layers.iter().filter(|layer| layer.origin != Origin::Base);
    history.extend(ours.map(|layer| {
        let kind = if layer.origin == Origin::Binary { "binary" } else { "asset" };
        json!({"created": created, "created_by": format!("cargo-lambda-image: {kind} {}", layer.name)})
    }));
    history
}

/// The base's entries, brought to `layer_count` that stand for a layer.
fn repair(base: &Value, layer_count: usize, created: &str) -> Vec<Value> {
    let entries = base.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut history: Vec<Value> = Vec::with_capacity(entries.len());
    let mut counted = 0;
    for entry in entries.iter().filter_map(Value::as_object) {
        let mut entry = readable(entry);
        if entry.get("empty_layer") != Some(&Value::Bool(true)) {
            if counted == layer_count {
                // More steps than layers: the surplus is told as steps that made none.
                entry.insert("empty_layer".to_owned(), Value::Bool(true));
            } else {
                counted += 1;
            }
        }
        history.push(Value::Object(entry));
    }
    let missing = (counted..layer_count).map(|_| json!({"created": created, "created_by": "layer of the base image"}));
    history.extend(missing);
    history
}

/// The entry without known fields of a wrong type, which strict readers stumble over; unknown fields stay.
fn readable(entry: &Map<String, Value>) -> Map<String, Value> {
    let sound = |(key, value): &(&String, &Value)| match key.as_str() {
        // An empty time is no time to those who parse it.
        "created" => value.as_str().is_some_and(|time| !time.is_empty()),
        "created_by" | "author" | "comment" => value.is_string(),
        "empty_layer" => value.is_boolean(),
        _ => true,
    };
    entry.iter().filter(sound).map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::config::tests::layer;

    const EPOCH: &str = "1970-01-01T00:00:00Z";

    fn layers(base: usize, ours: usize) -> Vec<Layer> {
        let base = (0..base).map(|number| layer(Origin::Base, "base", number as u8));
        base.chain((0..ours).map(|number| layer(Origin::Asset, "models", 100 + number as u8))).collect()
    }

    /// One letter an entry: `L` for a layer, `e` for none.
    fn shape(history: &[Value]) -> String {
        history.iter().map(|entry| if entry["empty_layer"] == true { 'e' } else { 'L' }).collect()
    }

    #[test]
    fn a_history_is_made_to_fit_its_layers() {
        let entry = json!({"created_by": "RUN"});
        let empty = json!({"created_by": "ENV", "empty_layer": true});
        let table = [
            (Value::Null, 0, 0, ""),
            (Value::Null, 4, 1, "LLLLL"),
            (json!([]), 2, 1, "LLL"),
            (json!([entry, empty]), 1, 1, "LeL"),
            (json!([empty, entry]), 3, 1, "eLLLL"),
            (json!([entry, entry, entry]), 1, 2, "LeeLL"),
            (json!([entry]), 0, 1, "eL"),
            (json!("damaged"), 1, 1, "LL"),
            (json!([null, 3, entry]), 1, 0, "L"),
        ];
        for (base, base_layers, ours, expected) in table {
            assert_eq!(shape(&extend(&base, &layers(base_layers, ours), EPOCH)), expected, "{base}");
        }
    }

    #[test]
    fn our_entries_name_what_they_stand_for() {
        let layers = [layer(Origin::Asset, "models", 1), layer(Origin::Binary, "hello", 2)];
        let expected = [
            json!({"created": EPOCH, "created_by": "cargo-lambda-image: asset models"}),
            json!({"created": EPOCH, "created_by": "cargo-lambda-image: binary hello"}),
        ];
        assert_eq!(extend(&Value::Null, &layers, EPOCH), expected);
    }

    #[test]
    fn fields_of_a_wrong_type_go_and_unknown_ones_stay() {
        let base = json!([{"created": 5, "empty_layer": "yes", "created_by": "RUN", "x": [1]}]);
        assert_eq!(extend(&base, &layers(1, 0), EPOCH), [json!({"created_by": "RUN", "x": [1]})]);
    }

    /// Anything a base's `history` may hold, from what is right to what is nonsense.
    fn any_history() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from),
        ];
        let field = prop_oneof![Just("created_by"), Just("empty_layer"), Just("comment"), Just("author"), Just("x")];
        let object = proptest::collection::vec((field, scalar.clone()), 0..4)
            .prop_map(|fields| Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()));
        let entry = prop_oneof![4 => object, 1 => scalar.clone()];
        prop_oneof![1 => scalar, 9 => proptest::collection::vec(entry, 0..12).prop_map(Value::from)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_base_history_comes_out_consistent(base in any_history(), base_layers in 0_usize..6, ours in 0_usize..4) {
            let history = extend(&base, &layers(base_layers, ours), EPOCH);
            let counted = history.iter().filter(|entry| entry["empty_layer"] != true).count();
            prop_assert_eq!(counted, base_layers + ours);
            let parsed: Result<Vec<oci_spec::image::History>, _> = serde_json::from_value(Value::Array(history));
            prop_assert!(parsed.is_ok(), "{:?}", parsed);
        }
    }
}
