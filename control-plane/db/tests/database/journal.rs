//! The journal in the database: leases, fencing by epoch, and engines that compete for its operations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bmi_api::{Code, OperationKind, OperationState};
use bmi_db::journal::{DbJournal, leases_end};
use bmi_db::operation::{self, Stored, Subject};
use bmi_db::{Db, DbError};
use bmi_tests::{TestDatabase, on_both_databases};
use bmi_types::{OperationId, ProjectId, Timestamp};
use bmi_workflow::{
    Claim, Engine, EngineError, Entry, Journal, JournalError, LEASE, Observed, OnFailure, Outcome, Ran,
    Record, Retry, State, Step, StepError, Summary, Workflow,
};
use tokio::sync::Notify;

const SECOND: Duration = Duration::from_secs(1);
/// When the operations of these tests were asked for.
const BEGINNING: Timestamp = Timestamp::from_micros(1_000_000_000);

on_both_databases! {
    a_lease_ends_by_itself_and_not_before_and_each_claim_has_a_higher_epoch,
    a_released_operation_waits_until_it_is_due_and_a_finished_one_for_ever,
    a_failure_is_kept_with_its_code_and_goes_when_it_has_passed,
    the_only_server_ends_every_lease_at_its_start_and_fences_who_held_one,
    whoever_has_an_old_epoch_is_refused_and_changes_nothing,
    many_operations_are_each_done_once_by_two_engines_of_four_workers,
    an_engine_that_slept_through_its_lease_writes_nothing_more,
}

struct Fixture {
    db: Db,
    journal: DbJournal,
    _database: TestDatabase,
}

fn fixture(database: TestDatabase) -> Fixture {
    let db = Db::open(&database.url).unwrap();
    Fixture { journal: DbJournal::new(db.clone()), db, _database: database }
}

impl Fixture {
    async fn operation(&self) -> OperationId {
        let project = ProjectId::generate();
        let subject = Subject { kind: "image", id: project.uuid(), name: "golden".parse().unwrap() };
        let written = self.db.system_write(move |tx| {
            operation::insert(tx, OperationKind::ImageSeal, project, &subject, "somebody", BEGINNING)
        });
        written.await.unwrap_or_else(|error: DbError| panic!("{error}")).id
    }

    async fn stored(&self, id: OperationId) -> Stored {
        let found = self.db.system_read(move |tx| operation::find(tx, id)).await;
        found.unwrap_or_else(|error: DbError| panic!("{error}")).unwrap()
    }

    async fn claim(&self, owner: &str, now: Timestamp) -> Option<Claim> {
        self.journal.claim(owner, now, LEASE).await.unwrap()
    }

    async fn append(&self, claim: &Claim, at: Timestamp, entry: Entry) -> Result<(), JournalError> {
        let record = Record { at, entry };
        let mut state = State::fold(1, OnFailure::Persist, &self.journal.records(claim.operation).await?);
        state.apply(&record);
        self.journal.append(claim, &record, Summary { state: &state }, LEASE).await
    }
}

fn is_fenced(result: Result<(), JournalError>, old: &Claim) -> bool {
    matches!(result, Err(JournalError::Fenced { operation, epoch }) if operation == old.operation && epoch == old.epoch)
}

async fn a_lease_ends_by_itself_and_not_before_and_each_claim_has_a_higher_epoch(database: TestDatabase) {
    let fixture = fixture(database);
    assert_eq!(fixture.claim("a", BEGINNING).await, None, "there is nothing to claim");
    let id = fixture.operation().await;
    assert_eq!(fixture.claim("a", Timestamp::from_micros(BEGINNING.micros() - 1)).await, None, "not due yet");
    let first = fixture.claim("a", BEGINNING).await.unwrap();
    assert_eq!((first.operation, first.kind.as_str(), first.epoch), (id, "image-seal", 1));
    let end = BEGINNING.plus(LEASE);
    assert_eq!(fixture.claim("b", Timestamp::from_micros(end.micros() - 1)).await, None, "held");

    // What is written prolongs the lease, and so does a renewal.
    fixture.append(&first, BEGINNING.plus(SECOND), Entry::StepStarted { step: 0 }).await.unwrap();
    assert_eq!(fixture.claim("b", end).await, None, "a record was written one second later");
    fixture.journal.renew(&first, BEGINNING.plus(10 * SECOND), LEASE).await.unwrap();
    assert_eq!(fixture.claim("b", end.plus(9 * SECOND)).await, None, "it was renewed ten seconds later");

    let second = fixture.claim("b", end.plus(10 * SECOND)).await.unwrap();
    assert_eq!((second.operation, second.epoch), (id, 2));
}

async fn a_released_operation_waits_until_it_is_due_and_a_finished_one_for_ever(database: TestDatabase) {
    let fixture = fixture(database);
    fixture.operation().await;
    let claim = fixture.claim("a", BEGINNING).await.unwrap();
    let due = BEGINNING.plus(2 * SECOND);
    fixture.journal.release(&claim, Some(due)).await.unwrap();
    assert_eq!(fixture.claim("b", BEGINNING.plus(SECOND)).await, None);
    let claim = fixture.claim("b", due).await.unwrap();
    assert_eq!(claim.epoch, 2);
    fixture.journal.release(&claim, None).await.unwrap();
    assert_eq!(fixture.claim("a", Timestamp::from_micros(i64::MAX)).await, None);
}

async fn a_failure_is_kept_with_its_code_and_goes_when_it_has_passed(database: TestDatabase) {
    let fixture = fixture(database);
    let id = fixture.operation().await;
    let claim = fixture.claim("a", BEGINNING).await.unwrap();
    let failure = |code: Option<&str>| Entry::StepFailed {
        step: 0,
        error: "no room".to_owned(),
        code: code.map(str::to_owned),
        retry: Retry::Later,
    };
    for (word, code) in [
        (Some("store-full"), Some(Code::StoreFull)),
        // A newer release may have more words.
        (Some("store-on-fire"), None),
        (None, None),
    ] {
        fixture.append(&claim, BEGINNING, failure(word)).await.unwrap();
        let stored = fixture.stored(id).await;
        assert_eq!((stored.error.as_deref(), stored.code), (Some("no room"), code));
        assert_eq!(stored.records.last().map(|record| &record.entry), Some(&failure(word)));
    }
    fixture.append(&claim, BEGINNING, failure(Some("store-full"))).await.unwrap();
    fixture.append(&claim, BEGINNING, Entry::StepDone { step: 0 }).await.unwrap();
    let stored = fixture.stored(id).await;
    assert_eq!((stored.error, stored.code), (None, None));
}

async fn the_only_server_ends_every_lease_at_its_start_and_fences_who_held_one(database: TestDatabase) {
    let fixture = fixture(database);
    let id = fixture.operation().await;
    let old = fixture.claim("a", BEGINNING).await.unwrap();
    fixture.db.system_write(leases_end).await.unwrap_or_else(|error: DbError| panic!("{error}"));
    let new = fixture.claim("b", BEGINNING).await.unwrap();
    assert_eq!((new.operation, new.epoch), (id, 2));
    assert!(is_fenced(fixture.append(&old, BEGINNING, Entry::StepStarted { step: 0 }).await, &old));
}

async fn whoever_has_an_old_epoch_is_refused_and_changes_nothing(database: TestDatabase) {
    let fixture = fixture(database);
    let id = fixture.operation().await;
    let old = fixture.claim("a", BEGINNING).await.unwrap();
    fixture.append(&old, BEGINNING, Entry::StepStarted { step: 0 }).await.unwrap();
    let later = BEGINNING.plus(LEASE);
    let new = fixture.claim("b", later).await.unwrap();

    let outcome = Outcome::Succeeded;
    assert!(is_fenced(fixture.append(&old, later, Entry::Finished { outcome }).await, &old));
    assert!(is_fenced(fixture.journal.renew(&old, later.plus(100 * SECOND), LEASE).await, &old));
    assert!(is_fenced(fixture.journal.release(&old, Some(later)).await, &old));

    let stored = fixture.stored(id).await;
    assert_eq!((stored.state, stored.records.len()), (OperationState::Running, 1));
    assert_eq!(fixture.claim("c", later).await, None, "the new claim was not given back");
    fixture.append(&new, later, Entry::StepDone { step: 0 }).await.unwrap();
    fixture.journal.release(&new, None).await.unwrap();
    assert!(is_fenced(fixture.journal.release(&old, Some(later)).await, &old), "also after the end");
    assert_eq!(fixture.claim("c", later.plus(LEASE)).await, None);
}

/// What steps do to operations, counted.
#[derive(Default)]
struct Work {
    done: Mutex<BTreeMap<OperationId, u32>>,
    inside: Mutex<BTreeMap<OperationId, u32>>,
    /// The first to begin waits for this, when it is there.
    hold: Option<Notify>,
    held: Mutex<bool>,
    begun: Notify,
}

struct Task {
    work: Arc<Work>,
    operation: OperationId,
}

struct Count;

#[async_trait]
impl Step<Task> for Count {
    fn name(&self) -> &'static str {
        "count"
    }

    async fn observe(&self, context: &Task) -> Result<Observed, StepError> {
        let done = context.work.done.lock().unwrap().contains_key(&context.operation);
        Ok(if done { Observed::Done } else { Observed::NotDone })
    }

    async fn apply(&self, context: &Task) -> Result<(), StepError> {
        let (work, operation) = (&context.work, context.operation);
        if let Some(hold) = &work.hold
            && !std::mem::replace(&mut *work.held.lock().unwrap(), true)
        {
            work.begun.notify_one();
            hold.notified().await;
            return Ok(());
        }
        let inside =
            *work.inside.lock().unwrap().entry(operation).and_modify(|inside| *inside += 1).or_insert(1);
        assert_eq!(inside, 1, "two engines work on {operation}");
        tokio::time::sleep(Duration::from_millis(2)).await;
        work.inside.lock().unwrap().remove(&operation);
        *work.done.lock().unwrap().entry(operation).or_default() += 1;
        Ok(())
    }

    async fn undo(&self, _context: &Task) -> Result<(), StepError> {
        Ok(())
    }
}

fn engine(fixture: &Fixture, work: &Arc<Work>, owner: &str, clock: &Arc<AtomicI64>) -> Engine<Task> {
    let (work, clock) = (Arc::clone(work), Arc::clone(clock));
    let workflow =
        Workflow { kind: "image-seal", steps: vec![Box::new(Count) as _], on_failure: OnFailure::Persist };
    Engine::new(
        Arc::new(fixture.journal.clone()),
        vec![workflow],
        owner,
        move |claim| Task { work: Arc::clone(&work), operation: claim.operation },
        move || Timestamp::from_micros(clock.load(Ordering::Relaxed)),
    )
}

async fn many_operations_are_each_done_once_by_two_engines_of_four_workers(database: TestDatabase) {
    const OPERATIONS: usize = 60;
    let (fixture, work) = (fixture(database), Arc::new(Work::default()));
    let clock = Arc::new(AtomicI64::new(BEGINNING.micros()));
    let mut operations = Vec::new();
    for _ in 0..OPERATIONS {
        operations.push(fixture.operation().await);
    }
    let engines = ["a", "b"].map(|owner| Arc::new(engine(&fixture, &work, owner, &clock)));
    let workers: Vec<_> = (0..8_usize)
        .map(|worker| {
            let (engine, work) = (engines.iter().cycle().nth(worker).unwrap().clone(), Arc::clone(&work));
            tokio::spawn(async move {
                while work.done.lock().unwrap().len() < OPERATIONS {
                    engine.run_once().await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        tokio::time::timeout(60 * SECOND, worker).await.unwrap().unwrap();
    }
    // A worker may have seen the last one done while another was still writing that down.
    while engines[0].run_once().await.unwrap() == Ran::Worked {}
    assert!(work.done.lock().unwrap().values().all(|times| *times == 1));
    for id in operations {
        let stored = fixture.stored(id).await;
        let entries: Vec<Entry> = stored.records.into_iter().map(|record| record.entry).collect();
        let outcome = Outcome::Succeeded;
        let once = [Entry::StepStarted { step: 0 }, Entry::StepDone { step: 0 }, Entry::Finished { outcome }];
        assert_eq!((stored.state, entries.as_slice()), (OperationState::Succeeded, once.as_slice()));
    }
}

async fn an_engine_that_slept_through_its_lease_writes_nothing_more(database: TestDatabase) {
    let fixture = fixture(database);
    let work = Arc::new(Work { hold: Some(Notify::new()), ..Work::default() });
    let clock = Arc::new(AtomicI64::new(BEGINNING.micros()));
    let id = fixture.operation().await;
    let slow = engine(&fixture, &work, "slow", &clock);
    let slow = tokio::spawn(async move { slow.run_once().await });
    work.begun.notified().await;

    // Its lease ends while it is inside the step; another engine does the work.
    clock.store(BEGINNING.plus(LEASE).micros(), Ordering::Relaxed);
    let quick = engine(&fixture, &work, "quick", &clock);
    assert_eq!(quick.run_once().await.unwrap(), Ran::Worked);
    let finished = fixture.stored(id).await;
    assert_eq!(finished.state, OperationState::Succeeded);

    work.hold.as_ref().unwrap().notify_one();
    let woken = slow.await.unwrap();
    assert!(matches!(woken, Err(EngineError::Journal(JournalError::Fenced { epoch: 1, .. }))), "{woken:?}");
    assert_eq!(fixture.stored(id).await.records, finished.records);
    assert_eq!(work.done.lock().unwrap()[&id], 1);
}
