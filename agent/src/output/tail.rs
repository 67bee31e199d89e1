//! The last lines of a log: where they begin, and how they are shown in a report.

/// Looks for the beginning of the last so many lines, from the end of a log backwards.
#[derive(Debug)]
pub(super) struct Backwards {
    end: u64,
    left: u32,
}

impl Backwards {
    /// Looks in a log that ends at this offset.
    pub(super) fn new(end: u64, lines: u32) -> Self {
        Self { end, left: lines }
    }

    /// Looks in the next bytes, which begin at this offset. Answers when the lines begin among them.
    pub(super) fn look(&mut self, from: u64, data: &[u8]) -> Option<u64> {
        let newlines = data.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        for (index, _) in newlines {
            let after = from + index as u64 + 1;
            // The end of the last line begins none.
            if after == self.end {
                continue;
            }
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                return Some(after);
            }
        }
        None
    }
}

/// A line is cut after so many characters.
const LONGEST_LINE: usize = 400;

/// The last so many lines as people may see them on any terminal: without control characters, none too long, and what is
/// no text replaced.
pub(super) fn lines(bytes: &[u8], most: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut last: Vec<_> = text.lines().rev().take(most).map(plain).collect();
    last.reverse();
    last
}

fn plain(line: &str) -> String {
    let mut plain = String::new();
    for (count, character) in line.chars().enumerate() {
        if count == LONGEST_LINE {
            plain.push('…');
            break;
        }
        match character {
            '\t' => plain.push(' '),
            control if control.is_control() => plain.extend(control.escape_default()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_short_and_plain() {
        assert_eq!(lines(b"one\ntwo\nthree\n", 2), ["two", "three"]);
        assert_eq!(lines(b"one\ntwo", 9), ["one", "two"]);
        assert_eq!(lines(b"a\x1b[2Jb\tc\x07\xff\r\n", 1), ["a\\u{1b}[2Jb c\\u{7}\u{fffd}"]);
        let long = lines("ä".repeat(1000).as_bytes(), 1);
        assert_eq!(long[0].chars().count(), LONGEST_LINE + 1);
        assert!(lines(b"", 3).is_empty());
    }
}
