//! The name that was probably meant, for errors about names that do not exist.

/// Longer names are not compared: it takes memory for each pair of letters.
const MAX_LENGTH: usize = 200;

/// The one of `known` that is nearest to `name`, if any is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_LENGTH {
        return None;
    }
    known
        .into_iter()
        .filter(|known| *known != name && known.len().abs_diff(name.len()) <= 3)
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, near)| *distance <= near.len().div_ceil(3).min(3) && *distance < near.len())
        .map(|(_, near)| near)
}

/// The end of an error about `name`: a suggestion, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["startswith", "endswith", "in", "proc.name", "regex"];
        for (name, near) in [
            ("startwith", Some("startswith")),
            ("porc.name", Some("proc.name")),
            ("regexp", Some("regex")),
            ("xyz", None),
            ("", None),
            ("in", None),
            ("proc.name.and.more", None),
        ] {
            assert_eq!(nearest(name, known), near, "{name}");
        }
        assert_eq!(nearest(&"a".repeat(1 << 20), ["a".repeat(1 << 20).as_str()]), None);
        assert_eq!(did_you_mean("porc.name", known), "; did you mean 'proc.name'?");
    }
}
