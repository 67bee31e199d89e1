//! The two dialects of INI files.
//
// No crate reads either: systemd repeats keys and goes on after a backslash, supervisord's values go on over lines that
// are indented, and end at a `;` after a space.

/// A section with its entries, as they stand in the file.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// What stands between the brackets.
    pub name: String,
    /// Keys and values. A key may be there more than once.
    pub entries: Vec<(String, String)>,
}

impl Section {
    /// Takes a setting out: the last one wins, and an empty one is none.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.take_each(key).pop().filter(|value| !value.is_empty())
    }

    /// Takes a setting that may be given more than once out; an empty one forgets those before it.
    pub(super) fn take_list(&mut self, key: &str) -> Vec<String> {
        let mut list = self.take_each(key);
        let first = list.iter().rposition(String::is_empty).map_or(0, |last_empty| last_empty + 1);
        list.split_off(first)
    }

    fn take_each(&mut self, key: &str) -> Vec<String> {
        self.entries.extract_if(.., |(known, _)| known == key).map(|(_, value)| value).collect()
    }
}

/// Reads a file of supervisord as Python's `configparser` does. Also gives back lines that are not understood.
pub(super) fn supervisord(text: &str) -> (Vec<Section>, Vec<String>) {
    let mut sections: Vec<Section> = Vec::new();
    let mut odd = Vec::new();
    let mut indent_of_key = None;
    for whole in text.lines() {
        let line = without_comment(whole);
        let content = line.trim();
        if content.is_empty() {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let last = sections.last_mut().and_then(|section| section.entries.last_mut());
        match (indent_of_key, last) {
            (Some(of_key), Some((_, value))) if indent > of_key => {
                value.push('\n');
                value.push_str(content);
                continue;
            }
            _ => {}
        }
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            indent_of_key = None;
            open(&mut sections, name);
            continue;
        }
        match (content.split_once(['=', ':']), sections.last_mut()) {
            (Some((key, value)), Some(section)) => {
                indent_of_key = Some(indent);
                section.entries.push((key.trim().to_lowercase(), value.trim().to_owned()));
            }
            _ => odd.push(content.to_owned()),
        }
    }
    (sections, odd)
}

/// Makes a section the last one. One that is there twice is one, to which the second adds.
fn open(sections: &mut Vec<Section>, name: &str) {
    let known = sections.iter().position(|section| section.name == name);
    let section = known.map(|known| sections.remove(known));
    sections.push(section.unwrap_or_else(|| Section { name: name.to_owned(), entries: Vec::new() }));
}

/// A comment begins at a `;` or `#` that begins the line or comes after a space.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (index, letter) in line.char_indices() {
        if matches!(letter, ';' | '#') && before.is_whitespace() {
            return line.get(..index).unwrap_or_default();
        }
        before = letter;
    }
    line
}

/// Reads a unit of systemd. Also gives back lines that are not understood.
pub(super) fn systemd(text: &str) -> (Vec<Section>, Vec<String>) {
    let mut sections: Vec<Section> = Vec::new();
    let mut odd = Vec::new();
    let mut begun = String::new();
    for line in text.lines() {
        let content = line.trim();
        // Comments may stand between the lines of one value.
        if content.starts_with(['#', ';']) || (content.is_empty() && begun.is_empty()) {
            continue;
        }
        if let Some(first) = content.strip_suffix('\\') {
            begun.push_str(first);
            begun.push(' ');
            continue;
        }
        begun.push_str(content);
        let content = std::mem::take(&mut begun);
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            open(&mut sections, name);
            continue;
        }
        match (content.split_once('='), sections.last_mut()) {
            (Some((key, value)), Some(section)) => {
                section.entries.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            _ => odd.push(content),
        }
    }
    odd.extend((!begun.is_empty()).then_some(begun));
    (sections, odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisords_values_go_on_over_indented_lines() {
        let text = "; c\n[program:a]\nCommand=/x -c;y ; no\nenvironment=A=\"1\",\n  # no\n  B=\"2\"\n\nuser: u\nodd\n\
                    [x]\n[program:a]\nuser=v\n";
        let (mut sections, odd) = supervisord(text);
        let program = sections.iter_mut().find(|section| section.name == "program:a").unwrap();
        assert_eq!(program.take("command").unwrap(), "/x -c;y");
        assert_eq!(program.take("environment").unwrap(), "A=\"1\",\nB=\"2\"");
        assert_eq!(program.take("user").unwrap(), "v");
        assert!(program.entries.is_empty());
        assert_eq!(odd, ["odd"]);
    }

    #[test]
    fn systemds_values_go_on_after_a_backslash() {
        let text = "# c\n[Service]\nExecStart=/x \\\n  # no\n  ; no\n  -a \\\n  -b\nEnvironment=A=1\nEnvironment=\nEnvironment=B=2\nodd\n";
        let (mut sections, odd) = systemd(text);
        let service = &mut sections[0];
        assert_eq!(
            service.take("ExecStart").unwrap().split_whitespace().collect::<Vec<_>>(),
            ["/x", "-a", "-b"]
        );
        assert_eq!(service.take_list("Environment"), ["B=2"]);
        assert!(service.entries.is_empty());
        assert_eq!(odd, ["odd"]);
    }
}
