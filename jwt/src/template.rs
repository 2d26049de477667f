//! The template of a principal: `repository/{repository_id}/run/{run_id}`.

use crate::escape::escape;
use crate::value::{Attributes, Scalar, Value};
use std::sync::Arc;

/// A template that makes one text of claims. Different values make different texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Claim(Arc<str>),
}

/// The fault of a template's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace has no other.
    #[error("has a brace without the other one")]
    Brace,
    /// A claim has no name.
    #[error("has braces without the name of a claim")]
    Name,
    /// A character between claims is not allowed.
    #[error("has other characters between claims than letters, digits, '/', '.', '_' and '-'")]
    Literal,
    /// Two claims have no '/' between them.
    #[error("has two claims without a '/' between them, so that two callers could have one name")]
    Separator,
    /// There is no claim.
    #[error("names no claim, so that all callers would be one")]
    NoClaim,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, behind) = rest.split_at(at);
            push_literal(literal, &mut parts)?;
            let inner = behind.strip_prefix('{').ok_or(TemplateError::Brace)?;
            let (name, behind) = inner.split_once('}').ok_or(TemplateError::Brace)?;
            if name.contains('{') {
                return Err(TemplateError::Brace);
            }
            if name.is_empty() {
                return Err(TemplateError::Name);
            }
            parts.push(Part::Claim(name.into()));
            rest = behind;
        }
        push_literal(rest, &mut parts)?;
        let claims = parts.iter().filter(|part| matches!(part, Part::Claim(_))).count();
        if claims == 0 {
            return Err(TemplateError::NoClaim);
        }
        // An escaped value has no '/', so that the parts can be told apart.
        let separators = parts.windows(3).filter(|three| {
            let [Part::Claim(_), Part::Literal(literal), Part::Claim(_)] = three else { return false };
            literal.contains('/')
        });
        if separators.count() + 1 != claims {
            return Err(TemplateError::Separator);
        }
        Ok(Self(parts))
    }

    /// The claims in it.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Claim(claim) => Some(&**claim),
            Part::Literal(_) => None,
        })
    }

    /// The text for these claims. The error is a claim that is neither a text with characters nor a whole number.
    pub(crate) fn expand(&self, attributes: &Attributes) -> Result<String, Arc<str>> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Claim(claim) => match attributes.get(claim) {
                    Some(Value::One(Scalar::Text(value))) if !value.is_empty() => escape(value, &mut text),
                    Some(Value::One(Scalar::Integer(value))) => text.push_str(&value.to_string()),
                    Some(Value::One(_) | Value::Absent | Value::List(_) | Value::Other) | None => {
                        return Err(claim.clone());
                    }
                },
            }
        }
        Ok(text)
    }
}

fn push_literal(literal: &str, parts: &mut Vec<Part>) -> Result<(), TemplateError> {
    if !literal.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-')) {
        return Err(TemplateError::Literal);
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.to_owned()));
    }
    Ok(())
}
