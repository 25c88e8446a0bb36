//! The rules of the house as a test: a reviewer never has to say them.
//!
//! Every rule collects all its findings and names file and line; exceptions stand in a list here, each with its reason.

mod layout;
mod rules;
mod source;

/// Fails with every finding, one a line.
fn report(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
