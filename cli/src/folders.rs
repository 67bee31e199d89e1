//! Where things lie by default, as the XDG base directories say.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Reads a variable of the environment. Empty counts as not set.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where `belay up` keeps its data by default: `$XDG_DATA_HOME/belay` or `~/.local/share/belay`.
pub(crate) fn data(env: Env<'_>) -> Result<PathBuf, Failure> {
    below(env, "XDG_DATA_HOME", ".local/share")
}

/// Where profiles are: `$XDG_CONFIG_HOME/belay/profiles.toml` or `~/.config/belay/profiles.toml`.
pub(crate) fn profiles(env: Env<'_>) -> Result<PathBuf, Failure> {
    Ok(below(env, "XDG_CONFIG_HOME", ".config")?.join("profiles.toml"))
}

fn below(env: Env<'_>, variable: &str, fallback: &str) -> Result<PathBuf, Failure> {
    // The specification says that a relative path there is to be ignored.
    let named = env(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = match (named, env("HOME")) {
        (Some(base), _) => base,
        (None, Some(home)) => Path::new(&home).join(fallback),
        (None, None) => {
            return Err(Failure::usage(format!("neither `{variable}` nor `HOME` is set"))
                .hint("name the folder with `--data DIR`"));
        }
    };
    Ok(base.join("belay"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(xdg: Option<&str>, home: Option<&str>, expected: Option<&str>) {
        let env = |name: &str| match name {
            "XDG_DATA_HOME" => xdg.map(str::to_owned),
            "HOME" => home.map(str::to_owned),
            _ => None,
        };
        assert_eq!(data(&env).ok(), expected.map(PathBuf::from));
    }

    #[test]
    fn follows_the_xdg_base_directories() {
        check(Some("/x"), Some("/h"), Some("/x/belay"));
        check(None, Some("/h"), Some("/h/.local/share/belay"));
        check(Some("relative"), Some("/h"), Some("/h/.local/share/belay"));
        check(None, None, None);
    }
}
