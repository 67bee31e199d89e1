//! The offset scheme: whatever is rotated, removed or interrupted, a byte is told under its own offset or not at all.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

use tempfile::TempDir;

use super::{rotate::Step, *};
use crate::output::open::open_for_process;

const KIB: u64 = 1 << 10;
const LIMITS: Limits = Limits { max_size: 64 * KIB, files: 4 };

/// An output, and all that was ever written to it.
struct Bench {
    dir: TempDir,
    alias: Alias,
    files: Files,
    process: File,
    truth: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let alias = Alias::try_from("obstat2".to_owned()).unwrap();
        let files = open_files(&dir, &alias);
        let process = open_for_process(&files.path()).unwrap();
        Self { dir, alias, files, process, truth: Vec::new() }
    }

    /// Writes whole lines, each with its number, of so many bytes together.
    fn write(&mut self, bytes: u64) {
        let end = self.truth.len() + bytes as usize;
        while self.truth.len() < end {
            let line = format!("line {:08} {}\n", self.truth.len(), "x".repeat(self.truth.len() % 83));
            self.process.write_all(line.as_bytes()).unwrap();
            self.truth.extend(line.as_bytes());
        }
    }

    /// Another life of the agent.
    fn reopen(&mut self) {
        self.files = open_files(&self.dir, &self.alias);
    }

    /// Everything that can be read, as ranges of offsets; fails where a byte is not the one of its offset.
    #[track_caller]
    fn read(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        loop {
            let Piece { offset, data } = self.files.piece(at, 10_000).unwrap();
            if data.is_empty() {
                return ranges;
            }
            let range = offset..offset + data.len() as u64;
            assert!(range.start >= at);
            let truth = &self.truth[range.start as usize..range.end as usize];
            assert!(truth == data, "what is at {range:?} is not what was written there");
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range.clone()),
            }
            at = range.end;
        }
    }

    /// The last range reaches to the end; gives back where it begins.
    #[track_caller]
    fn reads_to_the_end(&self) -> u64 {
        let last = self.read().pop().unwrap();
        assert_eq!(last.end, self.truth.len() as u64);
        assert_eq!(self.files.end(), last.end);
        last.start
    }

    fn full_paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("obstat2.log."))
            .collect();
        paths.sort();
        paths
    }
}

fn open_files(dir: &TempDir, alias: &Alias) -> Files {
    let files = Files::new(dir.path(), alias, LIMITS);
    files.refresh(true);
    files
}

/// With ranges taken out of the file, or with its truncation.
fn both_ways(check: impl Fn(Bench)) {
    for no_collapse in [false, true] {
        let bench = Bench::new();
        bench.files.turn().no_collapse = no_collapse;
        check(bench);
    }
}

#[test]
fn nothing_is_lost_over_rotations_and_only_the_oldest_is_removed() {
    both_ways(|mut bench| {
        for round in 0..30 {
            bench.write(70 * KIB);
            assert!(bench.files.rotate(true).unwrap().is_some(), "round {round}");
            let first = bench.reads_to_the_end();
            assert_eq!(first > 0, bench.full_paths().len() == 4 && round > 3, "round {round}");
        }
        for path in bench.full_paths() {
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("line ") && text.ends_with('\n'),
                "lines are whole in {}",
                path.display()
            );
            assert!(text.len() as u64 <= LIMITS.most());
        }
        assert!(fs::metadata(bench.files.path()).unwrap().len() <= LIMITS.max_size);
        assert!(bench.files.rotate(true).unwrap().is_none(), "it is not full");
    });
}

/// Hazard P28: of what piles up, the newest is kept and the rest is counted.
#[test]
fn a_flood_keeps_the_newest_and_counts_the_rest() {
    let mut bench = Bench::new();
    bench.write(1000 * KIB);
    let rotated = bench.files.rotate(true).unwrap().unwrap();
    let kept = bench.read();
    assert_eq!(kept, std::slice::from_ref(&(rotated.dropped..bench.truth.len() as u64)));
    assert!(kept[0].end - kept[0].start <= LIMITS.max_size);
    bench.write(100 * KIB);
    let rotated = bench.files.rotate(false).unwrap().unwrap();
    assert!(rotated.dropped >= 100 * KIB);
    bench.write(10);
    let ranges = bench.read();
    assert_eq!(ranges.len(), 2);
    assert_eq!(ranges[1].start - ranges[0].end, rotated.dropped, "the gap is what was dropped");
}

/// The agent is killed after each step of a rotation, and the process goes on writing, little or much.
#[test]
fn a_rotation_that_is_interrupted_shifts_no_offset() {
    for step in [Step::Copied, Step::Noted, Step::Cut, Step::Named] {
        for keep in [true, false] {
            for more in [0, 10, 300 * KIB] {
                both_ways(|mut bench| {
                    bench.write(70 * KIB);
                    bench.files.rotate(true).unwrap();
                    bench.write(70 * KIB);
                    let killed = bench.files.rotate_in_steps(keep, &mut |at| match at == step {
                        true => Err(io::Error::other("killed")),
                        false => Ok(()),
                    });
                    assert!(killed.is_err() || step == Step::Copied && !keep);
                    bench.write(more);
                    bench.reopen();
                    let ranges = bench.read();
                    assert_eq!(bench.files.end(), bench.truth.len() as u64, "{step:?} {keep} {more}");
                    if keep {
                        assert_eq!(
                            ranges,
                            std::slice::from_ref(&(0..bench.files.end())),
                            "{step:?} {more}: nothing is lost"
                        );
                    }
                    assert!(!bench.files.part_path().exists());
                    bench.write(70 * KIB);
                    bench.files.rotate(true).unwrap();
                    bench.reads_to_the_end();
                });
            }
        }
    }
}

#[test]
fn somebody_may_remove_full_files_and_the_mark() {
    both_ways(|mut bench| {
        for _ in 0..3 {
            bench.write(70 * KIB);
            bench.files.rotate(true).unwrap();
        }
        bench.write(100);
        let end = bench.files.end();
        fs::remove_file(&bench.full_paths()[1]).unwrap();
        assert_eq!(bench.read().len(), 2, "one gap");
        for path in bench.full_paths() {
            fs::remove_file(path).unwrap();
        }
        bench.reads_to_the_end();
        bench.reopen();
        bench.reads_to_the_end();
        assert_eq!(bench.files.end(), end);
        bench.write(70 * KIB);
        bench.files.rotate(true).unwrap();
        fs::remove_file(bench.files.mark_path()).unwrap();
        bench.write(100);
        bench.reads_to_the_end();
    });
}

#[test]
fn somebody_may_empty_the_log() {
    let mut bench = Bench::new();
    bench.write(1000);
    bench.files.look().unwrap();
    let end = bench.files.end();
    bench.process.set_len(0).unwrap();
    assert!(bench.files.look().unwrap().grown > 0, "who waits for it must be told");
    assert_eq!(bench.files.end(), end, "offsets do not go back");
    bench.write(100);
    assert_eq!(bench.reads_to_the_end(), end);
}

/// Hazard P29: a deleted log is still kept within its bound, and when the process has another one, reading goes on in it.
#[test]
fn a_deleted_log_is_followed_by_the_next() {
    let mut bench = Bench::new();
    bench.write(1000);
    fs::remove_file(bench.files.path()).unwrap();
    bench.files.refresh(false);
    assert!(!bench.files.path().exists(), "it is not made anew by the agent");
    bench.write(100 * KIB);
    assert!(bench.files.rotate(true).unwrap().is_some());
    bench.write(1000);
    bench.reads_to_the_end();
    bench.process = open_for_process(&bench.files.path()).unwrap();
    bench.files.refresh(false);
    bench.write(1000);
    assert_eq!(bench.read(), std::slice::from_ref(&(0..bench.truth.len() as u64)));
    bench.reopen();
    assert_eq!(bench.read(), std::slice::from_ref(&(0..bench.truth.len() as u64)));
}

/// Hazard P29: where nothing can be copied, the log is emptied all the same.
#[test]
fn a_disk_without_room_loses_output_and_no_more() {
    let mut bench = Bench::new();
    fs::create_dir(bench.files.part_path()).unwrap();
    bench.write(70 * KIB);
    let rotated = bench.files.rotate(true).unwrap().unwrap();
    assert_eq!(rotated.dropped, bench.truth.len() as u64);
    assert!(rotated.trouble.is_some());
    bench.write(100);
    bench.reads_to_the_end();
}

#[test]
fn the_last_lines_reach_back_into_full_files() {
    both_ways(|mut bench| {
        for _ in 0..3 {
            bench.write(70 * KIB);
            bench.files.rotate(true).unwrap();
        }
        let text = String::from_utf8(bench.truth.clone()).unwrap();
        let starts: Vec<u64> = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at as u64 + 1))
            .filter(|start| *start < bench.files.end())
            .collect();
        for lines in [1, 2, 100, starts.len() - 1, starts.len(), starts.len() + 9] {
            let expected = starts.len().checked_sub(lines).map_or(0, |at| starts[at]);
            assert_eq!(
                bench.files.last_lines(bench.files.end(), lines as u32, 0).unwrap(),
                expected,
                "{lines}"
            );
        }
        assert_eq!(bench.files.last_lines(bench.files.end(), 0, 0).unwrap(), bench.files.end());
        let end = bench.files.end();
        assert_eq!(bench.files.last_lines(end, 1000, end - 50).unwrap().max(end - 50), end - 50);
        bench.process.write_all(b"no end").unwrap();
        assert_eq!(bench.files.last_lines(end + 6, 1, 0).unwrap(), end);
    });
}

/// With the kernel taking ranges out of the file, not a byte is lost, whenever the process writes.
#[test]
fn a_process_that_writes_during_rotations_loses_nothing() {
    let bench = Bench::new();
    let done = AtomicBool::new(false);
    let (mut process, mut truth) = (bench.process.try_clone().unwrap(), Vec::new());
    let (told, rotations) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..60_000 {
                // Beyond twice the bound it would be a flood, of which not all is kept.
                while process.metadata().unwrap().len() > LIMITS.max_size * 3 / 2 {
                    std::thread::yield_now();
                }
                let line = format!("{number:07}\n");
                process.write_all(line.as_bytes()).unwrap();
                truth.extend(line.into_bytes());
            }
            done.store(true, Ordering::Relaxed);
        });
        let (mut told, mut at, mut rotations) = (Vec::new(), 0, 0);
        loop {
            let ended = done.load(Ordering::Relaxed);
            while let Piece { offset, data } = bench.files.piece(at, 30_000).unwrap()
                && !data.is_empty()
            {
                told.push((offset, data.len()));
                at = offset + data.len() as u64;
            }
            rotations += usize::from(bench.files.rotate(true).unwrap().is_some());
            if ended {
                writer.join().unwrap();
                return (told, rotations);
            }
        }
    });
    if bench.files.turn().no_collapse {
        return;
    }
    assert!(rotations > 0);
    let bench = Bench { truth, ..bench };
    assert_eq!(bench.reads_to_the_end() > 0, rotations > 4);
    let mut at = 0;
    for (offset, length) in told {
        assert_eq!(offset, at, "what is read meanwhile has no gap");
        at = offset + length as u64;
    }
}
