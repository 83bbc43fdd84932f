//! Flipped bytes, torn tails, lost ends: healed or refused, never silently less.

use super::*;

/// What a flipped byte may lead to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Healed,
    Unharmed,
}

#[tokio::test]
async fn of_200_flipped_bytes_each_is_healed_or_refused_with_the_command_and_none_loses_anything() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let template = tempfile::tempdir().unwrap();
    let store = fresh(template.path()).await;
    busy(&store, 60).await;
    let expected = (contents(&store), store.head(), store.lineage());
    store.close().await;

    let files: Vec<PathBuf> = tree(template.path())
        .into_keys()
        .filter(|path| !path.ends_with("master.lock"))
        .collect();
    let of = |part: &str| {
        files
            .iter()
            .filter(|path| path.to_string_lossy().contains(part))
            .cloned()
            .collect::<Vec<_>>()
    };
    let (journal, index) = (of("store/journal/"), of("store/index/"));
    let mut seen = BTreeMap::new();
    for round in 0..200 {
        let among = match round % 8 {
            0..4 => &journal,
            4..7 => &index,
            _ => &files,
        };
        let victim = &among[random.usize(..among.len())];
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        let name = victim.strip_prefix(template.path()).unwrap().to_owned();
        let mut bytes = fs::read(dir.path().join(&name)).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let (at, bits) = (random.usize(..bytes.len()), random.u8(1..));
        bytes[at] ^= bits;
        fs::write(dir.path().join(&name), bytes).unwrap();
        let story = format!(
            "seed {seed}, round {round}: byte {at} of {} xor {bits:#x}",
            name.display()
        );

        let before = tree(dir.path());
        let outcome = match open(dir.path()).await {
            Ok(store) => {
                assert_eq!(
                    (contents(&store), store.head(), store.lineage()),
                    expected,
                    "{story}"
                );
                let healed = store.healed().is_some();
                store.close().await;
                if healed {
                    Outcome::Healed
                } else {
                    Outcome::Unharmed
                }
            }
            Err(error) => {
                let command = format!("`picket-master restore --data-dir {}", dir.path().display());
                let text = error.to_string();
                assert!(
                    text.contains(&command) || text.contains("restore a snapshot"),
                    "{story}: {text}"
                );
                assert_eq!(tree(dir.path()), before, "{story}: a refusal changed something");
                Outcome::Refused
            }
        };
        let part = name
            .components()
            .nth(1)
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .to_owned();
        match part.as_str() {
            "journal" | "format" => assert_eq!(outcome, Outcome::Refused, "{story}"),
            "index" | "index.seal" => assert_eq!(outcome, Outcome::Healed, "{story}"),
            _ => assert_eq!(outcome, Outcome::Unharmed, "{story}"),
        }
        *seen.entry(part).or_insert(0) += 1;
    }
    assert!(seen["journal"] >= 100 && seen["index"] >= 75, "{seen:?}");
}

#[tokio::test]
async fn a_damaged_journal_is_refused_without_a_clean_stop_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    busy(&store, 5).await;
    store.close().await;
    fs::remove_file(dir.path().join("store/index.seal")).unwrap();
    let path = segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    // The last byte belongs to the last record's hash.
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let text = open(dir.path()).await.unwrap_err().to_string();
    assert!(
        text.contains("revision 5") && text.contains(path.to_str().unwrap()) && text.contains("at byte"),
        "{text}"
    );
}

/// A store with `before`, and the bytes of its journal with one more commit, of which the store does not know.
async fn one_more(len: usize) -> (tempfile::TempDir, Expected, usize, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(dir.path()).await;
    busy(&store, 3).await;
    let expected = contents(&store);
    store.close().await;
    let before = fs::read(segment(dir.path())).unwrap();
    let more = tempfile::tempdir().unwrap();
    copy(dir.path(), more.path());
    let store = open(more.path()).await.unwrap();
    store
        .commit(commit(vec![], vec![put("k/0", vec![7; len]), delete("k/1")]))
        .await
        .unwrap();
    store.close().await;
    let after = fs::read(segment(more.path())).unwrap();
    assert_eq!(after[..before.len()], before);
    (dir, expected, before.len(), after)
}

#[tokio::test]
async fn a_torn_record_is_cut_off_wherever_it_was_torn() {
    let (template, expected, start, journal) = one_more(120).await;
    for cut in start..journal.len() {
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        fs::write(segment(dir.path()), &journal[..cut]).unwrap();
        let store = open(dir.path()).await.unwrap();
        assert_eq!(
            contents(&store),
            expected,
            "cut at {cut} of {start}..{}",
            journal.len()
        );
        if cut % 97 == 0 {
            store
                .commit(commit(vec![], vec![put("after", "x")]))
                .await
                .unwrap();
            let expected = contents(&store);
            store.close().await;
            assert_eq!(
                contents(&open(dir.path()).await.unwrap()),
                expected,
                "cut at {cut}"
            );
        }
    }
}

#[tokio::test]
async fn a_record_whose_end_became_zeros_is_cut_off_at_every_sector() {
    let (template, expected, start, journal) = one_more(1500).await;
    let sectors = (start..journal.len()).filter(|cut| cut % 512 == 0);
    let cuts: Vec<usize> = [start].into_iter().chain(sectors).collect();
    assert!(cuts.len() > 2);
    for (cut, more) in cuts.into_iter().flat_map(|cut| [(cut, 0), (cut, 4096)]) {
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        let mut bytes = journal[..cut].to_vec();
        bytes.resize(journal.len() + more, 0);
        fs::write(segment(dir.path()), bytes).unwrap();
        let store = open(dir.path())
            .await
            .unwrap_or_else(|error| panic!("zeros from {cut}: {error}"));
        assert_eq!(contents(&store), expected, "zeros from {cut}");
    }
}

#[tokio::test]
async fn a_journal_that_lost_acknowledged_commits_at_its_end_is_refused() {
    let (template, _, start, journal) = one_more(1500).await;
    fs::write(segment(template.path()), &journal).unwrap();
    open(template.path()).await.unwrap().close().await;
    // Cut between records, and in one: both were acknowledged. One witness of that is enough.
    for (cut, lose) in [
        (start, None),
        (start + 40, None),
        (start, Some("head")),
        (start, Some("index.seal")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        fs::write(segment(dir.path()), &journal[..cut]).unwrap();
        if let Some(lose) = lose {
            fs::remove_file(dir.path().join("store").join(lose)).unwrap();
        }
        let text = open(dir.path()).await.unwrap_err().to_string();
        assert!(
            text.contains("its end is missing") && text.contains("picket-master restore"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_missing_piece_of_the_store_is_refused() {
    let template = tempfile::tempdir().unwrap();
    let store = fresh(template.path()).await;
    busy(&store, 3).await;
    store.close().await;
    for lose in ["format", "journal/00000000000000000001.log"] {
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        fs::remove_file(dir.path().join("store").join(lose)).unwrap();
        let text = open(dir.path()).await.unwrap_err().to_string();
        assert!(
            text.contains("picket-master restore --data-dir"),
            "{lose}: {text}"
        );
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fresh(dir.path()).await.close().await;
    let path = dir.path().join("store/format");
    let newer = fs::read_to_string(&path)
        .unwrap()
        .replace("picket-store 1", "picket-store 2");
    fs::write(&path, newer).unwrap();
    let before = tree(dir.path());
    let text = open(dir.path()).await.unwrap_err().to_string();
    assert!(
        text.contains("has format 2, and this picket-master knows formats up to 1"),
        "{text}"
    );
    assert_eq!(tree(dir.path()), before);
}

#[tokio::test]
async fn a_directory_without_a_store_is_told_from_a_damaged_one_and_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    let text = open(dir.path()).await.unwrap_err().to_string();
    assert!(
        text.contains("holds no store") && text.contains("picket-master init"),
        "{text}"
    );
    assert_eq!(tree(dir.path()), BTreeMap::new());
}

#[tokio::test]
async fn nobody_else_can_read_the_files_of_a_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = fresh(&data).await;
    busy(&store, 3).await;
    store.close().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in tree(&data).into_keys() {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(
        (
            mode(&data),
            mode(&data.join("store")),
            mode(&data.join("store/journal"))
        ),
        (0o700, 0o700, 0o700)
    );
}
