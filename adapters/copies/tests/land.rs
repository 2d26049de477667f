//! Landing with real git: raced by others, refused, repeated after a crash, many at once; and nothing lost or done twice.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use support::{CutShell, TestShell, World, sh};
use wharfinger_adapter::{Adapter, Blame, Failure, PrepareJob, Prepared, ProvisionJob, ResourceJob, access};
use wharfinger_copies::{Clean, LandRequest, LandedFrom, Landing, NotLanded, Push, land};

fn from(resource: &ResourceJob, prepared: &Prepared) -> LandedFrom {
    LandedFrom {
        resource: resource.resource.clone(),
        path: prepared.access[access::PATH].clone(),
        repository: prepared.access[access::REPOSITORY].clone(),
        fence: None,
        sparse: Vec::new(),
        ca_file: String::new(),
    }
}

async fn land_on(world: &World, prepared: &Prepared, request: &LandRequest) -> Result<Landing, NotLanded> {
    land(&TestShell::default(), &from(&world.job, prepared), request).await
}

fn request(id: &str) -> LandRequest {
    LandRequest::new(id, "main")
}

fn pushed(landing: Result<Landing, NotLanded>) -> Push {
    match landing {
        Ok(Landing::Landed(push)) => push,
        other => panic!("it did not land: {other:?}"),
    }
}

fn failure(landing: Result<Landing, NotLanded>) -> Failure {
    landing.expect_err("it landed").failure("main")
}

/// Runs git in the origin.
fn origin(world: &World, script: &str) -> String {
    sh(&world.origin.dir.join("origin.git"), script)
}

fn hook(world: &World, name: &str, script: &str) {
    let path = world.origin.dir.join("origin.git/hooks").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\nW='{}'\n{script}\n", world.origin.dir.join("work").display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

const IDENTITY: &str = "git config user.name builder; git config user.email b@example.org;";
/// Another commit on main, by another user.
const ELSEWHERE: &str = "git checkout -q main; git pull -q origin main; date +%N$$ >>elsewhere.txt; git add -A; git commit -qm elsewhere; git push -q origin main";

#[tokio::test]
async fn commits_of_a_build_land() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil(&format!("{IDENTITY} echo new >new.txt; git add -A; git commit -qm 'made by a build'"));
    let (head, before) = (world.spoil("git rev-parse HEAD"), world.origin.id("main"));

    // The branch can just be moved forward.
    let dry = land_on(&world, &prepared, &LandRequest { dry_run: true, ..request("dry") }).await.unwrap();
    let expected = Push { commit: head.clone(), onto: before.clone(), commits: 1, tries: 1, left: vec![] };
    assert_eq!(dry, Landing::WouldLand(expected.clone()));
    assert_eq!(world.origin.id("main"), before, "a dry run pushes nothing");
    assert_eq!(land_on(&world, &prepared, &request("a")).await, Ok(Landing::Landed(expected)));
    assert_eq!(world.origin.id("main"), head);
    assert_eq!(land_on(&world, &prepared, &request("a")).await, Ok(Landing::Nothing { tip: head.clone() }));

    // Another push came between: a merge, which says what it is.
    world.spoil("echo more >>new.txt; git commit -qam more");
    world.origin.work(ELSEWHERE);
    let (head, before) = (world.spoil("git rev-parse HEAD"), world.origin.id("main"));
    let push = pushed(land_on(&world, &prepared, &request("b")).await);
    assert_eq!((push.onto, push.commits), (before.clone(), 2));
    assert_eq!(world.origin.id("main"), push.commit);
    assert_eq!(
        origin(
            &world,
            "git log -1 --format='%P|%an|%cn|%(trailers:key=Wharfinger-Landing,valueonly,separator=%x2C)' main"
        ),
        format!("{before} {head}|Wharfinger|Wharfinger|b")
    );
    assert_eq!(origin(&world, "git show main:new.txt; git show main:elsewhere.txt | wc -l"), "new\nmore\n1");

    // A message makes a merge of what could move forward.
    let again = world.prepare(&[]).await.unwrap();
    world.spoil(&format!("{IDENTITY} echo 3 >>new.txt; git commit -qam three"));
    let with = LandRequest {
        message: Some("Release 3\n\nwith a body".into()),
        author: Some("Ada <ada@example.org>".parse().unwrap()),
        ..request("c")
    };
    let push = pushed(land_on(&world, &again, &with).await);
    assert_eq!(push.commits, 2);
    assert_eq!(
        origin(&world, "git log -1 --format='%an <%ae>|%s|%b' main"),
        "Ada <ada@example.org>|Release 3|with a body\n\nWharfinger-Landing: c"
    );
    assert!(!world.home().join("meta/landing").exists());
    assert_eq!(world.check().await, wharfinger_adapter::Verdict::Healthy);
}

#[tokio::test]
async fn a_squash_is_one_commit_by_its_author() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil(&format!(
        "{IDENTITY} for i in 1 2 3; do echo $i >>new.txt; git add -A; git commit -qm \"step $i\"; done"
    ));
    world.origin.work(ELSEWHERE);
    let before = world.origin.id("main");
    let squash = LandRequest { squash: true, ..request("s1") };
    let push = pushed(land_on(&world, &prepared, &squash).await);
    assert_eq!((push.commits, &push.onto), (1, &before));
    let said = origin(&world, "git log -1 --format='%P|%an|%cn|%B' main");
    assert!(said.starts_with(&format!("{before}|a|Wharfinger|Land ")), "{said}");
    assert!(said.contains("* step 1\n* step 2\n* step 3") && said.ends_with("\n\nWharfinger-Landing: s1"), "{said}");
    assert_eq!(origin(&world, "git show main:new.txt"), "1\n2\n3");
    // Again, and again under another id: it is there.
    assert_eq!(land_on(&world, &prepared, &squash).await, Ok(Landing::Already { commit: push.commit.clone() }));
    let other = LandRequest { squash: true, ..request("s2") };
    assert_eq!(land_on(&world, &prepared, &other).await, Ok(Landing::Nothing { tip: push.commit }));

    let again = world.prepare(&[]).await.unwrap();
    world.spoil(&format!("{IDENTITY} echo 4 >>new.txt; git commit -qam 'only one' -m 'Its body.'"));
    pushed(land_on(&world, &again, &LandRequest { squash: true, ..request("s3") }).await);
    assert_eq!(origin(&world, "git log -1 --format=%B main"), "only one\n\nIts body.\n\nWharfinger-Landing: s3");
}

#[tokio::test]
async fn a_merge_that_a_lease_asked_for_lands_as_it_was_built() {
    let world = World::new(Clean::Clean).await;
    world.origin.work("git checkout -qb feat main~1; echo feat >feat.txt; git add -A; git commit -qm feat; git push -q origin feat; git checkout -q main");
    let prepared = world.prepare(&[("branch", "main"), ("merge", "feat")]).await.unwrap();
    let push = pushed(land_on(&world, &prepared, &request("m")).await);
    assert_eq!(push.commit, prepared.access[access::COMMIT]);
    assert_eq!(push.onto, prepared.access[access::BASE]);
    assert_eq!(world.origin.id("main"), push.commit);
}

#[tokio::test]
async fn uncommitted_changes_land_on_request() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(
        "printf '*.big filter=evil\n' >.gitattributes; echo big >x.big; echo sub >dir-to-file; mkdir d; echo 1 >d/one
        git add -A; git commit -qm more; git push -q origin main",
    );
    let prepared = world.prepare(&[]).await.unwrap();
    let changes = LandRequest { changes: true, message: Some("By a build".into()), ..request("w1") };
    assert_eq!(
        land_on(&world, &prepared, &changes).await,
        Ok(Landing::Nothing { tip: world.origin.id("main") }),
        "nothing was changed"
    );
    world.spoil(
        "git config filter.evil.clean \"touch '$FLAG'; cat\"; git config filter.evil.smudge cat;
        echo changed >>a.txt; git update-index --skip-worktree a.txt; echo other >>src/main.c; git update-index --assume-unchanged src/main.c
        rm old.txt link; ln -s run.sh link; chmod +x 'with space.txt'; rm run.sh; mkdir run.sh; echo in >run.sh/in; rm -r d; echo file >d
        mkdir -p target; echo ignored >target/x; echo o >y.o; echo changed >x.big; echo new >new.big
        printf 'n\n' >\"$(printf 'new\nline')\"; mkdir -p deep/er; echo deep >deep/er/file; git add deep; echo staged-then-changed >deep/er/file",
    );
    let expected = world.spoil(
        "git update-index --no-skip-worktree --no-assume-unchanged a.txt src/main.c; export GIT_INDEX_FILE=\"$ORIGIN/i\"
        git read-tree HEAD; git add -A -- ':!*.big'; git write-tree; unset GIT_INDEX_FILE
        git update-index --skip-worktree a.txt; git config core.fsmonitor \"touch '$FLAG'\"; rm -f \"$FLAG\"",
    );
    let push = pushed(land_on(&world, &prepared, &changes).await);
    assert_eq!(push.left, ["new.big", "x.big"], "what has a filter is told of");
    assert!(!world.flag().exists(), "a program of the holder ran");
    assert_eq!(origin(&world, "git rev-parse main^{tree}"), expected);
    assert_eq!(
        origin(&world, "git log -1 --format='%an|%s|%(trailers:key=Wharfinger-Landing,valueonly,separator=)' main"),
        "Wharfinger|By a build|w1"
    );
    assert_eq!(origin(&world, "git show main:a.txt | tail -n 1; git show main:x.big"), "changed\nbig");
    // The copy is as the build left it: the same call again makes another commit, and is recognised by its id.
    assert_eq!(land_on(&world, &prepared, &changes).await, Ok(Landing::Already { commit: push.commit }));
    // A repository among the files cannot be landed.
    world.spoil(
        "mkdir inner; cd inner; git init -q; echo x >x; git add x; git -c user.name=a -c user.email=a commit -qm x",
    );
    let nested = failure(land_on(&world, &prepared, &LandRequest { changes: true, ..request("w2") }).await);
    assert_eq!((nested.blame, nested.reason), (Blame::Request, "NESTED_REPOSITORY"), "{nested}");
}

#[tokio::test]
async fn a_conflict_pushes_nothing_and_names_the_files() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil(&format!(
        "{IDENTITY} echo mine >a.txt; echo mine >'with space.txt'; echo mine >fine.txt; git add -A; git commit -qm mine"
    ));
    world
        .origin
        .work("echo theirs >a.txt; echo theirs >'with space.txt'; git commit -qam theirs; git push -q origin main");
    let before = world.origin.id("main");
    for squash in [false, true] {
        let landing = land_on(&world, &prepared, &LandRequest { squash, ..request("c") }).await;
        let expected = NotLanded::Conflict {
            tip: before.clone(),
            from: world.spoil("git rev-parse HEAD"),
            files: vec!["a.txt".into(), "with space.txt".into()],
        };
        assert_eq!(landing, Err(expected));
        let failure = failure(landing);
        assert_eq!((failure.blame, failure.reason), (Blame::Request, "MERGE_CONFLICT"));
        assert!(failure.message.contains("a.txt, with space.txt"), "{failure}");
    }
    assert_eq!(world.origin.id("main"), before);
}

#[tokio::test]
async fn raced_by_another_push_it_is_merged_again() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil(&format!("{IDENTITY} echo new >new.txt; git add -A; git commit -qm new"));
    // While our push is under way another one comes through, three times. What git pushes from within a hook must not
    // see the quarantine of the push that it belongs to.
    let race = format!(
        "n=$(cat $W/races 2>/dev/null || echo 0); [ -z \"$NO_RACE\" ] && [ $n -lt LIMIT ] || exit 0
        echo $((n + 1)) >$W/races; unset GIT_DIR GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG_GLOBAL
        export NO_RACE=1 GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x; cd $W && {{ {ELSEWHERE}; }} >&2"
    );
    hook(&world, "pre-receive", &race.replace("LIMIT", "3"));
    let push = pushed(land_on(&world, &prepared, &request("race")).await);
    assert_eq!(push.tries, 4);
    assert_eq!(origin(&world, "git show main:elsewhere.txt | wc -l; git show main:new.txt"), "3\nnew");

    // For ever: it gives up after a number of tries.
    world.spoil("echo newer >>new.txt; git commit -qam newer");
    hook(&world, "pre-receive", &race.replace("LIMIT", "1000"));
    let landing = land_on(&world, &prepared, &LandRequest { tries: 3, ..request("for-ever") }).await;
    assert_eq!(landing, Err(NotLanded::Raced { tries: 3 }));
    let failure = failure(landing);
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "LANDING_RACED"));
    assert_eq!(origin(&world, "git show main:elsewhere.txt | wc -l; git show main:new.txt"), "6\nnew");
}

#[tokio::test]
async fn after_a_crash_a_push_that_happened_is_recognised() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil(&format!("{IDENTITY} echo new >new.txt; git add -A; git commit -qm new"));
    world.origin.work(ELSEWHERE);
    // The script runs to its end, and its answer is lost.
    let cut = CutShell::after(1);
    let squash = LandRequest { squash: true, ..request("crash-1") };
    {
        let site = from(&world.job, &prepared);
        let landing = land(&cut, &site, &squash);
        tokio::select! {
            landing = landing => panic!("it was heard: {landing:?}"),
            () = cut.cut.notified() => {}
        }
    }
    let tip = world.origin.id("main");
    world.origin.work(ELSEWHERE);
    assert_eq!(land_on(&world, &prepared, &squash).await, Ok(Landing::Already { commit: tip }));

    // The push is done and the script is killed before git says so: by the remote's own hook, which the local transport
    // lets us kill us from.
    world.spoil("git fetch -q origin; git reset -q --hard origin/main; echo newer >>new.txt; git commit -qam newer");
    hook(
        &world,
        "post-receive",
        "[ -e $W/killed ] || { : >$W/killed; exec kill -KILL -- -$(ps -o pgid= -p $$ | tr -d ' '); }",
    );
    let squash = LandRequest { squash: true, ..request("crash-2") };
    let killed = land_on(&world, &prepared, &squash).await.expect_err("the script was killed");
    assert_eq!(killed.failure("main").blame, Blame::Resource, "{killed:?}");
    assert!(world.origin.dir.join("work/killed").exists());
    let tip = world.origin.id("main");
    assert_eq!(land_on(&world, &prepared, &squash).await, Ok(Landing::Already { commit: tip }));
    let count = origin(&world, "git log --format=%B main | grep -c '^Wharfinger-Landing: crash-'");
    assert_eq!(count, "2", "each landed once");
    assert!(!world.home().join("meta/landing").exists(), "what the killed one left is gone");
}

#[tokio::test]
async fn killed_at_any_time_it_lands_once() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    for round in 0..12u64 {
        world.spoil(&format!("{IDENTITY} echo {round} >>new.txt; git add -A; git commit -qm 'round {round}'"));
        let id = format!("kill-{round}");
        let squash = LandRequest { squash: true, ..request(&id) };
        // Ever later, until one gets to its end.
        let mut wait = 20 + round * 13;
        loop {
            let limit = std::time::Duration::from_millis(wait);
            let shell = TestShell::default();
            let site = from(&world.job, &prepared);
            // Dropped: the group is killed, as when a connection breaks.
            if let Ok(done) = tokio::time::timeout(limit, land(&shell, &site, &squash)).await {
                match done {
                    Ok(Landing::Landed(_) | Landing::Already { .. }) => break,
                    other => panic!("round {round}: {other:?}"),
                }
            }
            wait = wait * 3 / 2;
            // By the local transport the remote's half is in our group and dies with it; a remote of its own would have
            // gone on and let go of its locks.
            origin(&world, "find . -name '*.lock' -delete");
        }
        assert_eq!(origin(&world, &format!("git log --format=%B main | grep -c '^Wharfinger-Landing: {id}$'")), "1");
        // Each on what is there now.
        world.spoil("git fetch -q origin; git reset -q --hard origin/main");
    }
    assert_eq!(origin(&world, "git show main:new.txt | wc -l"), "12");
}

#[tokio::test]
async fn a_refusal_of_the_remote_is_reported_in_its_words() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil(&format!("{IDENTITY} echo new >new.txt; git add -A; git commit -qm new"));
    let before = world.origin.id("main");
    for name in ["pre-receive", "update"] {
        hook(&world, name, "echo 'main is protected, ask Ada' >&2; exit 1");
        let landing = land_on(&world, &prepared, &request("r")).await;
        let failure = failure(landing);
        assert_eq!((failure.blame, failure.reason), (Blame::Request, "PUSH_REFUSED"), "{failure}");
        assert!(failure.message.contains("main is protected, ask Ada"), "{failure}");
        origin(&world, &format!("rm hooks/{name}"));
    }
    // It can be read and not pushed to.
    let bin = world.origin.dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let git = sh(&world.origin.dir, "command -v git");
    let script =
        format!("#!/bin/sh\ncase \"$*\" in *' push '*) echo 'you may not' >&2; exit 128 ;; esac\nexec {git} \"$@\"\n");
    std::fs::write(bin.join("git"), script).unwrap();
    sh(&bin, "chmod +x git");
    let env = vec![("PATH".into(), format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))];
    let shell = TestShell { env, prefix: Vec::new() };
    let landing = land(&shell, &from(&world.job, &prepared), &request("r")).await;
    let denied = failure(landing);
    assert_eq!((denied.blame, denied.reason), (Blame::Configuration, "PUSH_DENIED"), "{denied}");
    assert!(denied.message.contains("you may not"), "{denied}");
    assert_eq!(world.origin.id("main"), before);

    let missing = failure(land_on(&world, &prepared, &LandRequest::new("r", "nowhere")).await);
    assert_eq!((missing.blame, missing.reason), (Blame::Request, "REF_NOT_FOUND"), "{missing}");
    sh(&world.origin.dir, "mv origin.git away.git");
    let away = failure(land_on(&world, &prepared, &request("r")).await);
    assert_eq!((away.blame, away.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{away}");
    sh(&world.origin.dir, "mv away.git origin.git");
    assert_eq!(pushed(land_on(&world, &prepared, &request("r")).await).onto, before);
}

#[tokio::test]
async fn without_the_lease_nothing_lands() {
    let world = World::new(Clean::Clean).await;
    let work = world.work(&[]);
    let prepared = world.prepare_for(work.clone()).await.unwrap();
    world.spoil(&format!("{IDENTITY} echo new >new.txt; git add -A; git commit -qm new"));
    let mut site = from(&world.job, &prepared);
    site.fence = Some((prepared.access[access::FENCE].clone(), work.token + 1));
    let fenced = failure(land(&TestShell::default(), &site, &request("f")).await);
    assert_eq!((fenced.blame, fenced.reason), (Blame::Provider, "FENCED"), "{fenced}");
    site.fence = Some((prepared.access[access::FENCE].clone(), work.token));
    pushed(land(&TestShell::default(), &site, &request("f")).await);
}

/// Nothing that stands in the copy's `.git` runs, is believed, or says where to push.
#[tokio::test]
async fn the_copys_configuration_takes_no_part() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil(&format!(
        "{IDENTITY} echo new >new.txt; git add -A; git commit -qm new; git init -q --bare ../../evil.git
        for k in core.fsmonitor core.sshCommand core.gitProxy core.pager core.editor uploadpack.packObjectsHook credential.helper gpg.program diff.external core.alternateRefsCommand; do git config $k \"touch '$FLAG'\"; done
        git config url.../../evil.git.insteadOf \"$ORIGIN/origin.git\"; git config url.../../evil.git.pushInsteadOf \"$ORIGIN/origin.git\"
        git config remote.origin.url ../../evil.git; git config push.gpgSign if-asked; git config commit.gpgSign true
        for h in pre-push reference-transaction post-checkout commit-msg prepare-commit-msg pre-commit post-commit; do printf '#!/bin/sh\ntouch \"%s\"\n' \"$FLAG\" >.git/hooks/$h; chmod +x .git/hooks/$h; done
        git update-ref refs/replace/$(git rev-parse HEAD) $(git rev-parse HEAD~1); rm -f \"$FLAG\""
    ));
    let changes = LandRequest { changes: true, ..request("config") };
    world.spoil("echo x >x.txt");
    let push = pushed(land_on(&world, &prepared, &changes).await);
    assert!(!world.flag().exists(), "a program of the holder ran");
    assert_eq!(world.origin.id("main"), push.commit);
    assert_eq!(origin(&world, "git show main:new.txt main:x.txt"), "new\nx");
}

/// A commit whose blob is forged in the copy does not land, in no form.
#[tokio::test]
async fn a_forged_object_does_not_land() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    let before = world.origin.id("main");
    world.spoil(&format!(
        "{IDENTITY} echo good >new.txt; git add -A; git commit -qm new
        o=$(git rev-parse HEAD:new.txt); f=.git/objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-); rm -f $f
        python3 -c 'import zlib,sys; open(sys.argv[1],\"wb\").write(zlib.compress(b\"blob 5\\0evil\\n\"))' $f"
    ));
    let failure = failure(land_on(&world, &prepared, &request("forged")).await);
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "OBJECTS_BROKEN"), "{failure}");
    assert_eq!(world.origin.id("main"), before);
}

/// Copies on the same host.
async fn copies(world: &World, count: usize) -> Vec<(ResourceJob, Prepared)> {
    let mut found = Vec::new();
    for number in 0..count {
        let mut job = world.job.clone();
        job.resource = format!("{}_{number}", job.resource);
        job.handle = None;
        let made = world.adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap();
        job.handle = Some(made.handle);
        let prepare = PrepareJob { resource: job.clone(), work: world.work(&[]), child: None };
        let prepared = world.adapter.prepare(&prepare).await.unwrap();
        let tree = prepared.access[access::PATH].clone();
        sh(
            tree.as_ref(),
            &format!("{IDENTITY} echo {number} >mine-{number}.txt; git add -A; git commit -qm 'work {number}'"),
        );
        found.push((job, prepared));
    }
    found
}

#[tokio::test]
async fn twenty_at_once_from_four_copies_all_land() {
    let world = World::new(Clean::Clean).await;
    let copies = Arc::new(copies(&world, 4).await);
    let others = world.origin.dir.join("work");
    let foreign = tokio::task::spawn_blocking(move || {
        for _ in 0..5 {
            // The loser of a race tries again, as people do.
            sh(
                &others,
                &format!(
                    "i=0; until ( {ELSEWHERE} ) 2>/dev/null; do git fetch -q origin; git reset -q --hard origin/main; i=$((i+1)); [ $i -lt 50 ]; done"
                ),
            );
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20usize {
        let copies = Arc::clone(&copies);
        tasks.spawn(async move {
            let (job, prepared) = &copies[number % 4];
            let request = LandRequest {
                squash: number % 3 == 0,
                // So that each of the five from one copy has something to add.
                message: Some(format!("landing {number}")),
                tries: 50,
                ..LandRequest::new(format!("many-{number}"), "main")
            };
            (number, land(&TestShell::default(), &from(job, prepared), &request).await)
        });
    }
    let mut landed = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (number, landing) = done.unwrap();
        match landing {
            Ok(Landing::Landed(push)) => landed.push((number, push.commit)),
            // Another one had the copy's commit in it already.
            Ok(Landing::Nothing { .. }) => {}
            other => panic!("landing {number}: {other:?}"),
        }
    }
    foreign.await.unwrap();
    // Each copy's work is there, each push is in the history still, and no other one was lost.
    assert!(landed.len() >= 4, "{landed:?}");
    for (number, commit) in &landed {
        origin(
            &world,
            &format!("git merge-base --is-ancestor {commit} main || {{ echo landing {number} is lost >&2; exit 1; }}"),
        );
    }
    for number in 0..4 {
        assert_eq!(origin(&world, &format!("git show main:mine-{number}.txt")), number.to_string());
    }
    assert_eq!(origin(&world, "git show main:elsewhere.txt | wc -l"), "5");
    let twice = origin(
        &world,
        "git log --format='%(trailers:key=Wharfinger-Landing,valueonly,separator=)' main | grep . | sort | uniq -d",
    );
    assert_eq!(twice, "", "landed twice");
}

#[tokio::test]
async fn two_at_once_from_two_copies_both_land() {
    let world = World::new(Clean::Clean).await;
    let both = copies(&world, 2).await;
    let shell = TestShell::default();
    let sites: Vec<LandedFrom> = both.iter().map(|(job, prepared)| from(job, prepared)).collect();
    let (one, two) = (request("one"), request("two"));
    let (one, two) = tokio::join!(land(&shell, &sites[0], &one), land(&shell, &sites[1], &two));
    let (one, two) = (pushed(one), pushed(two));
    // On one host they wait for each other, so none has to try twice.
    assert_eq!((one.tries, two.tries), (1, 1));
    assert_eq!(origin(&world, "git show main:mine-0.txt main:mine-1.txt"), "0\n1");
    let tips = [one.commit, two.commit];
    assert!(tips.contains(&world.origin.id("main")), "the later of both is the tip");
}

#[tokio::test]
async fn a_caller_that_waits_in_vain_gets_an_error_and_remains_are_removed() {
    let world = World::new(Clean::Clean).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil(&format!("{IDENTITY} echo new >new.txt; git add -A; git commit -qm new"));
    let lock = world.home().join("meta/landing.lock");
    let mut holder = std::process::Command::new("/bin/sh")
        .args(["-c", "exec 9>>\"$1\"; flock 9; : >\"$1.held\"; exec cat", "sh"])
        .arg(&lock)
        // It holds the lock until it is killed.
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let held = lock.with_extension("lock.held");
    while !held.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let short = LandRequest { limit: std::time::Duration::from_secs(30), ..request("busy") };
    // A third of the limit for each lock.
    let busy = failure(land_on(&world, &prepared, &short).await);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!((busy.blame, busy.reason), (Blame::Provider, "LANDING_BUSY"), "{busy}");
    pushed(land_on(&world, &prepared, &request("busy")).await);

    for name in ["landing", "scratch"] {
        std::fs::create_dir_all(world.home().join("meta").join(name).join("objects")).unwrap();
    }
    world.prepare(&[]).await.unwrap();
    for name in ["landing", "scratch"] {
        assert!(!world.home().join("meta").join(name).exists(), "{name}");
    }
}
