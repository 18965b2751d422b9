//! Names of files for names that others chose.

use sha2::{Digest, Sha256};

/// 128 bits of SHA-256 over the parts, each with its length, so that ("ab", "c") and ("a", "bc") differ; as hex.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize().first_chunk::<16>().unwrap_or(&[0; 16]))
}

/// A network's or plugin's name as a file name: itself when it is an ordinary CNI name (specification, section 1), else
/// `=` and a hash. What is longer than a file name can be, or has a slash, then can't clash with or leave its folder.
pub(crate) fn file_name(name: &str) -> String {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && name.len() <= 200 && name.bytes().all(ordinary) {
        name.to_owned()
    } else {
        format!("={}", digest(&[name]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_name_is_a_file_name_of_its_own(name: String, other: String) {
            let file = file_name(&name);
            prop_assert!(!file.is_empty() && file.len() <= 255 && !file.contains('/') && !file.starts_with('.'));
            prop_assert_eq!(file == file_name(&other), name == other);
        }
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(file_name("mynet"), "mynet");
        assert!(file_name("..").starts_with('='));
    }
}
