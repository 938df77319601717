//! JSON (RFC 8259), written: [`Json`].
//!
//! Addresses, words and handles are strings like `"0x4a99b"`, since many readers keep numbers as floating point and lose bits above
//! 53; counts are numbers.

use std::fmt::{self, Display, Formatter};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A count.
    Number(u64),
    /// An address or a word, as a string.
    Hex(u64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Names and values, in this order.
    Object(Vec<(&'static str, Self)>),
}

impl Json {
    /// A string.
    #[must_use]
    pub fn text(text: impl Display) -> Self {
        Self::Text(text.to_string())
    }
}

impl Display for Json {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Hex(value) => write!(f, "\"{value:#x}\""),
            Self::Text(text) => quoted(f, text),
            Self::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    separated(f, index)?;
                    write!(f, "{value}")?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    separated(f, index)?;
                    quoted(f, name)?;
                    write!(f, ":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn separated(f: &mut Formatter<'_>, index: usize) -> fmt::Result {
    f.write_str(if index == 0 { "" } else { "," })
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            control if control < ' ' => write!(f, "\\u{:04x}", u32::from(control))?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_rfc_has_them() {
        let value = Json::Object(vec![
            ("pfn", Json::Hex(0x4_a99b)),
            ("frames", Json::Number(u64::MAX)),
            ("vm", Json::Null),
            (
                "list",
                Json::List(vec![Json::Bool(true), Json::Bool(false)]),
            ),
            ("none", Json::List(vec![])),
        ]);
        assert_eq!(
            value.to_string(),
            r#"{"pfn":"0x4a99b","frames":18446744073709551615,"vm":null,"list":[true,false],"none":[]}"#
        );
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(
            Json::text("a \"b\" \\ \n\t\u{1}é").to_string(),
            r#""a \"b\" \\ \n\u0009\u0001é""#
        );
    }
}
