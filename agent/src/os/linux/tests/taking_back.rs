//! Instances of an earlier life of the agent.

use super::*;

/// Hazards P01 to P03 and A05: what does not match in every respect is another process.
#[tokio::test]
async fn only_the_very_same_process_is_taken_back() {
    in_both_modes("exec sleep 1000", async |subject| {
        let Subject { linux, instance, .. } = &subject;
        assert!(matches!(linux.adopt(instance), Adoption::Alive(_)));
        let other = Instance { ticks: instance.ticks + 1, cgroup: None, generation: 4, ..instance.clone() };
        assert!(matches!(linux.adopt(&other), Adoption::Gone(Exit::Unknown)));
        let number = instance.number.map(|number| number + 1);
        let twin = Instance { number, cgroup: None, generation: 4, ..instance.clone() };
        assert_eq!(matches!(linux.adopt(&twin), Adoption::Gone(Exit::Unknown)), number.is_some());
        // An older journal does not have it.
        let mut written = serde_json::to_value(instance).unwrap();
        written.as_object_mut().unwrap().remove("number");
        let older: Instance = serde_json::from_value(written).unwrap();
        assert!(matches!(linux.adopt(&older), Adoption::Alive(_)));
        let rebooted = Instance { boot_id: "another".to_owned(), cgroup: None, ..instance.clone() };
        assert!(matches!(linux.adopt(&rebooted), Adoption::Gone(Exit::Unknown)));
        assert!(exists(instance.pid));
    })
    .await;
}

/// Hazard A02: the journal may know nothing, what lives is found all the same.
#[tokio::test]
async fn living_instances_show_themselves() {
    in_both_modes("sleep 1000 & wait", async |subject| {
        let found = subject.linux.survey();
        let [(instance, tree)] = &found[..] else {
            panic!("one instance");
        };
        let identity = |i: &Instance| (i.pid, i.ticks, i.generation, i.cgroup.clone());
        assert_eq!(identity(instance), identity(&subject.instance));
        tree.kill().unwrap();
        subject.emptied().await;
        subject.main_ended().await;
        assert!(subject.linux.survey().is_empty());
    })
    .await;
}
