//! How a section of the configuration is declared: one row per key gives the struct field, its default, its
//! documentation, its parser with exact errors, and its row in `docs/config.md`. It knows no section itself.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, Deserializer, Visitor},
};

use super::live;
use super::units::{Size, Span};

/// What a key's value looks like, for the reference and for messages.
pub trait Value: Clone + PartialEq {
    /// The type in a reader's words.
    fn kind() -> String;
    /// The value as it would be written in the file.
    fn show(&self) -> String;
    /// The keys below, for a section or a list of sections.
    fn keys() -> Option<Vec<Key>> {
        None
    }
    /// Takes over what differs in `new`, this value being that of the key `path`, where a running agent can; names the
    /// keys that need a restart instead. A list changes as a whole.
    fn adopt(&mut self, new: &Self, path: &str, restart: &mut Vec<String>) {
        if self == new {
            return;
        }
        if live::is_live(path) {
            self.clone_from(new);
        } else {
            restart.push(path.to_owned());
        }
    }
}

/// One key of a section.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// What it means.
    pub doc: String,
    /// Its type.
    pub kind: String,
    /// Its default, as written in the file.
    pub default: String,
    /// The keys below it.
    pub keys: Option<Vec<Key>>,
}

/// Declares sections: structs with public fields, defaults, documentation and a parser each.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, )+
        }
    )+) => {$(
        $(#[doc = $section_doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $section {
            $( $(#[doc = $doc])+ pub $key: $type, )+
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $( $key: $default, )+ }
            }
        }

        impl $crate::config::schema::Value for $section {
            fn kind() -> String {
                "section".to_owned()
            }

            // Only what differs from the section's own defaults.
            fn show(&self) -> String {
                let default = Self::default();
                let mut keys = Vec::new();
                $(
                    let value = $crate::config::schema::Value::show(&self.$key);
                    if value != $crate::config::schema::Value::show(&default.$key) {
                        keys.push(format!("{}: {value}", $crate::config::schema::plain(stringify!($key))));
                    }
                )+
                format!("{{{}}}", keys.join(", "))
            }

            fn adopt(&mut self, new: &Self, path: &str, restart: &mut Vec<String>) {
                $(
                    let key = $crate::config::schema::plain(stringify!($key));
                    let path_of_key = $crate::config::live::path(path, key);
                    $crate::config::schema::Value::adopt(&mut self.$key, &new.$key, &path_of_key, restart);
                )+
            }

            fn keys() -> Option<Vec<$crate::config::schema::Key>> {
                let default = Self::default();
                Some(vec![$(
                    $crate::config::schema::Key {
                        name: $crate::config::schema::plain(stringify!($key)),
                        doc: [$($doc),+].map(str::trim).join(" "),
                        kind: <$type as $crate::config::schema::Value>::kind(),
                        default: $crate::config::schema::Value::show(&default.$key),
                        keys: <$type as $crate::config::schema::Value>::keys(),
                    },
                )+])
            }
        }

        impl<'de> serde::Deserialize<'de> for $section {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Section;
                impl<'de> serde::de::Visitor<'de> for Section {
                    type Value = $section;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a section (`key: value` lines)")
                    }

                    // `webserver:` with every line below commented out.
                    fn visit_unit<E: serde::de::Error>(self) -> Result<$section, E> {
                        Ok($section::default())
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$section, A::Error> {
                        let mut section = $section::default();
                        let known = &[$(stringify!($key)),+];
                        let mut seen = Vec::new();
                        while let Some(key) = map.next_key_seed($crate::config::schema::KeySeed { known, seen: &seen })? {
                            match key {
                                $( stringify!($key) => section.$key = map.next_value()?, )+
                                _ => {}
                            }
                            seen.push(key);
                        }
                        Ok(section)
                    }
                }
                deserializer.deserialize_any(Section)
            }
        }
    )+};
}

/// Declares a choice of words.
macro_rules! words {
    ($(
        $(#[doc = $choice_doc:literal])+
        $choice:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal $(| $other:literal)*, )+ }
    )+) => {$(
        $(#[doc = $choice_doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $choice {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $choice {
            /// Every word, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word in the file.
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl std::str::FromStr for $choice {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text.to_ascii_lowercase().as_str() {
                    $( $word $(| $other)* => Ok(Self::$variant), )+
                    _ => Err($crate::config::schema::unknown("value", text, Self::WORDS)),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $choice {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::schema::parsed(deserializer, "a word")
            }
        }

        impl $crate::config::schema::Value for $choice {
            fn kind() -> String {
                Self::WORDS.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" \\| ")
            }

            fn show(&self) -> String {
                self.word().to_owned()
            }
        }
    )+};
}

pub(crate) use sections;
pub(crate) use words;

/// Reads a key where it stands, so that the error of an unknown or repeated key has that key's line.
pub(crate) struct KeySeed<'a> {
    pub(crate) known: &'a [&'static str],
    pub(crate) seen: &'a [&'static str],
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<&'static str, E> {
        if self.seen.iter().any(|seen| plain(seen) == key) {
            return Err(E::custom(format_args!("the key `{}` is there twice", printable(key))));
        }
        match self.known.iter().find(|known| plain(known) == key) {
            Some(known) => Ok(known),
            None => Err(E::custom(unknown("key", key, self.known))),
        }
    }
}

/// `r#match` is `match` in the file.
pub(crate) fn plain(key: &'static str) -> &'static str {
    key.strip_prefix("r#").unwrap_or(key)
}

/// The message for a word that is not among `known`: names the nearest one, or all of them.
pub(crate) fn unknown(what: &str, text: &str, known: &[&'static str]) -> String {
    let lower = text.to_ascii_lowercase();
    let nearest = known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(plain(word), &lower), plain(word)))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        // More changes than half the word is no likeness.
        Some((distance, word)) if distance <= (word.len() / 2).max(1) => {
            format!("unknown {what} `{}`; the nearest is `{word}`", printable(text))
        }
        _ => {
            let words: Vec<_> = known.iter().map(|word| format!("`{}`", plain(word))).collect();
            format!("unknown {what} `{}`; known are {}", printable(text), words.join(", "))
        }
    }
}

/// Parses a scalar by `FromStr`; numbers and booleans that YAML made of it are taken as their text.
pub(crate) fn parsed<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: fmt::Display>,
{
    struct Scalar<T>(&'static str, std::marker::PhantomData<T>);
    impl<T: std::str::FromStr<Err: fmt::Display>> Visitor<'_> for Scalar<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }
    }
    deserializer.deserialize_any(Scalar(expected, std::marker::PhantomData))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "a duration such as `10s`")
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "a size such as `8MiB`")
    }
}

macro_rules! plain_values {
    ($($type:ty, $kind:literal, |$value:ident| $show:expr;)+) => {$(
        impl Value for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn show(&self) -> String {
                let $value = self;
                $show
            }
        }
    )+};
}

plain_values! {
    bool, "boolean", |value| value.to_string();
    u16, "number", |value| value.to_string();
    u32, "number", |value| value.to_string();
    f64, "number", |value| value.to_string();
    String, "text", |value| quoted(value);
    PathBuf, "path", |value| quoted(&value.to_string_lossy());
    std::net::IpAddr, "IP address", |value| value.to_string();
    Span, "duration", |value| value.to_string();
    Size, "size", |value| value.to_string();
}

impl<T: Value> Value for Vec<T> {
    fn kind() -> String {
        format!("list of {}", T::kind())
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Value::show).collect::<Vec<_>>().join(", "))
    }

    fn keys() -> Option<Vec<Key>> {
        T::keys()
    }
}

impl<T: Value> Value for Option<T> {
    fn kind() -> String {
        T::kind()
    }

    fn show(&self) -> String {
        self.as_ref().map(Value::show).unwrap_or_default()
    }

    fn keys() -> Option<Vec<Key>> {
        T::keys()
    }
}

/// Text as YAML has it: as it is where it can be taken for nothing else.
pub(super) fn quoted(text: &str) -> String {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '/' | '_' | '-');
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '/') || text.starts_with("./");
    if begins && text.chars().all(plain) && !WORDS.contains(&text) {
        return text.to_owned();
    }
    // YAML has every string of JSON; text is never what fails to be one.
    serde_json::to_string(text).unwrap_or_default()
}

/// At most 64 characters, control characters escaped: a key of a foreign file goes into a one-line message.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}
