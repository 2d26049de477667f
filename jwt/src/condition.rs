//! Conditions on claims: typed and exact.

use crate::value::{Attributes, Scalar, Value};
use std::sync::Arc;

/// A condition on one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The name of the claim: that of a member, or members with dots between.
    pub claim: Arc<str>,
    /// The values that it may have.
    pub test: Test,
}

/// The values of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// The claim is one of these.
    Is(Vec<Scalar>),
    /// The claim is a list with one of these in it.
    Contains(Vec<Scalar>),
}

impl Condition {
    /// Whether the claim has one of the values. `"true"` is not `true`, and a list equals nothing.
    pub fn holds(&self, attributes: &Attributes) -> bool {
        match (&self.test, attributes.get(&self.claim)) {
            (Test::Is(wanted), Some(Value::One(value))) => wanted.contains(value),
            (Test::Contains(wanted), Some(Value::List(list))) => list.iter().any(|value| wanted.contains(value)),
            (Test::Is(_) | Test::Contains(_), _) => false,
        }
    }

    /// Whether a caller is refused whose claim must not have these values. A claim that is absent refuses none. A claim of
    /// another type refuses, and so does one that was not looked for: a refusal must not fail to refuse.
    pub fn refuses(&self, attributes: &Attributes) -> bool {
        let (Test::Is(unwanted) | Test::Contains(unwanted)) = &self.test;
        let hits = |value: &Scalar| unwanted.contains(value) || !unwanted.iter().all(|other| other.is_like(value));
        match attributes.get(&self.claim) {
            Some(Value::Absent) => false,
            Some(Value::One(value)) => hits(value),
            Some(Value::List(list)) => list.iter().any(hits),
            Some(Value::Other) | None => true,
        }
    }
}
