//! The part of JSON schema that `integrations/result.schema.json` uses. A field without an entry there is a fault, so that the
//! schema is whole.

use serde_json::Value;

/// Panics with the path of the first value that the schema does not allow.
pub(super) fn check(document: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../../../integrations/result.schema.json")).unwrap();
    if let Err(why) = judge(&schema, &schema, document, "$") {
        panic!("{why}\n{document:#}");
    }
}

fn judge(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').unwrap();
        return judge(root, root.pointer(pointer).unwrap(), value, at);
    }
    if let Some(all) = schema["anyOf"].as_array() {
        let any = all.iter().any(|one| judge(root, one, value, at).is_ok());
        return if any { Ok(()) } else { Err(format!("{at} is none of those allowed: {value}")) };
    }
    if let Some(only) = schema.get("const")
        && only != value
    {
        return Err(format!("{at} is {value} and not {only}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema has type {other}"),
    };
    if !types.is_empty() && !types.iter().any(|name| is(name)) {
        return Err(format!("{at} is {value}, and not of {types:?}"));
    }
    let within = |bound: &str, fits: fn(i64, i64) -> bool| {
        let (Some(bound), Some(value)) = (schema[bound].as_i64(), value.as_i64()) else { return true };
        fits(value, bound)
    };
    if !within("minimum", |value, bound| value >= bound) || !within("maximum", |value, bound| value <= bound) {
        return Err(format!("{at} is out of bounds: {value}"));
    }
    if schema.get("pattern").is_some() && !is_time(value.as_str().unwrap_or_default()) {
        return Err(format!("{at} is no time: {value}"));
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                return Err(format!("{at} has no {name}"));
            }
        }
        for (name, value) in fields {
            let Some(inner) = schema["properties"].get(name) else {
                return Err(format!("{at}.{name} is not in the schema"));
            };
            judge(root, inner, value, &format!("{at}.{name}"))?;
        }
    }
    for (number, value) in value.as_array().into_iter().flatten().enumerate() {
        judge(root, &schema["items"], value, &format!("{at}[{number}]"))?;
    }
    Ok(())
}

/// The one pattern of the schema: `2026-11-30T08:00:00.000Z`.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[test]
#[should_panic(expected = "is not in the schema")]
fn a_field_that_the_schema_does_not_know_is_a_fault() {
    let schema: Value = serde_json::from_str(include_str!("../../../integrations/result.schema.json")).unwrap();
    let names = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string());
    let mut fields: serde_json::Map<String, Value> = names.map(|name| (name, Value::Null)).collect();
    fields.insert("new".into(), Value::Null);
    let only = serde_json::json!({ "type": "object", "properties": {} });
    judge(&schema, &only, &Value::Object(fields), "$").unwrap();
}
