//! What the agent remembers is wrong.

use std::fs;

use crate::{
    MODES, SLEEPER, check_done,
    host::{Host, Way, alive},
    tracked,
};

/// Hazard P04: a pid of another boot means nothing, and is not signalled for it. What shows itself to be the agent's is
/// taken back all the same.
#[tokio::test]
async fn another_boot_voids_what_is_remembered() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root shows an agent another boot id");
        return;
    }
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let boot_id = dir.path().join("boot_id");
        let shown = boot_id.display();
        // Once the file is there, the agent sees it in place of the kernel's.
        let text =
            format!("[ ! -e {shown} ] || mount --bind {shown} /proc/sys/kernel/random/boot_id; exec \"$@\"");
        let around = ["unshare", "--mount", "sh", "-c", &text, "sh"].map(str::to_owned).to_vec();
        let way = Way { around, settings: tracked(mode), ..Way::default() };
        let mut host = Host::start_so(&[("obstat2", SLEEPER)], way).await;
        let before = host.process("obstat2").await;
        host.crash().await;
        fs::write(&boot_id, "12345678-1234-4234-8234-123456789012\n").unwrap();
        host.begin().await;
        let after = host.process("obstat2").await;
        assert_eq!((after.pid, after.generation), (before.pid, before.generation), "{mode}");
        assert!(host.server.hello().await.boot_id != host.server.hello().await.boot_id);
        check_done(&host.stop("obstat2").await.unwrap(), &["obstat2"]);
        assert!(!alive(before.pid));
    }
}

/// Hazards A05 and A02: where the journal is cut, flipped or gone, what lives is found, not begun again and not signalled;
/// what was left by a crash does not matter.
#[tokio::test]
async fn what_lives_is_found_without_a_journal() {
    for mode in MODES {
        let mut host = Host::start_with(&[("obstat2", SLEEPER)], &tracked(mode)).await;
        let before = host.process("obstat2").await;
        let journal = host.folder().join("state/journal");
        let damages: [fn(&mut Vec<u8>); 4] = [
            |bytes| bytes.truncate(bytes.len() - 5),
            |bytes| bytes[40] ^= 4,
            |bytes| bytes[0] ^= 4,
            |bytes| bytes.clear(),
        ];
        for damage in damages {
            host.crash().await;
            let mut bytes = fs::read(&journal).unwrap();
            damage(&mut bytes);
            fs::write(&journal, bytes).unwrap();
            host.begin().await;
            let after = host.process("obstat2").await;
            assert_eq!((after.pid, after.generation), (before.pid, before.generation), "{mode}");
        }
        check_done(&host.stop("obstat2").await.unwrap(), &["obstat2"]);
        assert!(!alive(before.pid));
    }
}
