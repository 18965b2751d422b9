//! A long script that fails, cut down to a short one that still does (Zeller, Hildebrandt, "Simplifying and Isolating
//! Failure-Inducing Input", 2002): without this chunk, and that one, in smaller and smaller chunks.

/// The shortest of the scripts that were tried and failed. `fails` runs one; it is asked until `goes_on` says no.
pub(crate) fn shrink<T: Clone>(
    script: &[T],
    mut goes_on: impl FnMut() -> bool,
    mut fails: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut best = script.to_vec();
    let mut chunk = best.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        let mut cut = false;
        // From the end: what came last mostly matters least but for the very last step.
        while at < best.len() {
            if !goes_on() {
                return best;
            }
            let end = best.len() - at;
            let start = end.saturating_sub(chunk);
            let shorter: Vec<T> = best
                .iter()
                .enumerate()
                .filter(|(n, _)| !(start..end).contains(n))
                .map(|(_, step)| step.clone())
                .collect();
            if shorter.len() < best.len() && fails(&shorter) {
                best = shorter;
                cut = true;
            } else {
                at += chunk;
            }
        }
        if !(cut && chunk == 1) {
            chunk /= 2;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_left() {
        let script: Vec<u32> = (0..300).collect();
        let mut runs = 0;
        let fails = |steps: &[u32]| {
            runs += 1;
            [17, 101, 102, 299].iter().all(|needed| steps.contains(needed))
        };
        assert_eq!(shrink(&script, || true, fails), [17, 101, 102, 299]);
        assert!(runs < 200, "{runs}");
    }

    #[test]
    fn it_ends_when_told_to() {
        let mut left = 5;
        let goes_on = || {
            left -= 1;
            left > 0
        };
        assert!(shrink(&[1, 2, 3, 4, 5, 6, 7, 8], goes_on, |steps| steps.contains(&3)).contains(&3));
    }
}
