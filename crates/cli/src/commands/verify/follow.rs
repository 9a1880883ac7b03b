//! Walking on from where an earlier walk has ended: once, or for ever as a service.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use sigillo_client::Connection;
use sigillo_model::{
    audit::{Fault, Finding, Holder, Saved, Shown, Trust, Walker},
    ids::{NodeHash, Origin},
    note::Note,
    state::JournalState,
    verdict::{Outcome, STALE_AFTER_S, Stale, Verdict},
};
use tokio::time::sleep;

use super::{
    Judge, VerifyArgs, say, service,
    state::StateFile,
    tell, unix_now, views,
    walk::{self, Stopped, Walked},
};
use crate::{
    commands::head::chain_hash,
    failure::{EXIT_ALTERED, Failure, tell as shout},
    global::GlobalArgs,
    output::Format,
};

/// How often the state is kept during a long walk.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// Roots of sizes behind the walk that are remembered as proved, so that the server is not asked for a proof again.
const PROVED_MAX: usize = 1_024;

/// How to go on.
#[derive(Debug)]
pub(super) struct Options {
    state: PathBuf,
    reason: String,
    now: Option<u64>,
    /// For ever.
    follow: bool,
    metrics: Option<SocketAddr>,
    every: Duration,
    grace: Duration,
}

impl Options {
    pub(super) fn new(args: &VerifyArgs, state: PathBuf) -> Self {
        let follow = &args.follow;
        Self {
            state,
            reason: args.reason.clone(),
            now: args.now,
            follow: follow.follow,
            metrics: follow.metrics,
            every: Duration::from_secs(follow.every),
            grace: Duration::from_secs(follow.grace),
        }
    }
}

/// Walks on, and judges.
pub(super) async fn run(options: Options, judge: Judge, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let mut audit = Audit::open(options, judge, global)?;
    if !audit.options.follow {
        let began = Instant::now();
        let (code, answer) = match audit.look().await {
            Ok((walked, outcome)) => {
                (tell::code(&outcome.verdict), tell::outcome(&walked, &outcome, began.elapsed(), global.output))
            }
            Err(Stopped::Altered(finding)) => (EXIT_ALTERED, tell::altered(&finding, &[], global.output)),
            Err(Stopped::Failed(failure)) => return Err(failure),
        };
        say(&answer)?;
        return Ok(ExitCode::from(code));
    }
    if let Some(address) = audit.options.metrics {
        service::show_metrics(address)?;
    }
    let stop = service::stop_on_signals()?;
    service::notify(&[NotifyState::Ready]);
    let code = tokio::select! {
        () = stop.cancelled() => 0,
        code = audit.follow(global.output) => code?,
    };
    service::notify(&[NotifyState::Stopping]);
    Ok(ExitCode::from(code))
}

struct Audit<'a> {
    options: Options,
    judge: Judge,
    global: &'a GlobalArgs,
    file: StateFile,
    walker: Walker,
    connection: Option<Connection>,
    /// The checkpoint that this account remembered when the connection was made. Each look holds the journal to it.
    remembered: Option<Shown>,
    /// The checkpoint that is kept with the state.
    kept: Option<Note>,
    /// Sizes behind the walk, with the roots that were proved for them.
    proved: BTreeMap<u64, NodeHash>,
}

impl<'a> Audit<'a> {
    fn open(options: Options, judge: Judge, global: &'a GlobalArgs) -> Result<Self, Failure> {
        let file = StateFile::open(&options.state)?;
        let mut trust = Trust::new(judge.policy.clone());
        let mut kept = None;
        let state = match file.load()? {
            Some(saved) if saved.state.origin.as_str() != judge.origin => {
                let (kept, expected) = (&saved.state.origin, &judge.origin);
                return Err(Failure::Usage(format!(
                    "--state is of the journal {kept}, the trust file is for {expected}"
                )));
            }
            Some(Saved { state, rotations, accepted }) => {
                kept.clone_from(&accepted);
                trust.resume(rotations, accepted).map_err(|finding| Failure::Unreadable(finding.to_string()))?;
                state
            }
            None => {
                let origin = Origin::new(judge.origin.clone());
                JournalState::genesis(origin.map_err(|error| Failure::Usage(format!("trust file: {error}")))?)
            }
        };
        let walker = Walker::whole(state).held_to(trust);
        Ok(Self {
            options,
            judge,
            global,
            file,
            walker,
            connection: None,
            remembered: None,
            kept,
            proved: BTreeMap::new(),
        })
    }

    /// Looks again and again. Returns the code to end with.
    async fn follow(&mut self, format: Format) -> Result<u8, Failure> {
        let mut stale_since: Option<Instant> = None;
        let mut told: Option<&'static str> = None;
        let mut is_reachable = true;
        loop {
            let began = Instant::now();
            let before = self.walker.state().size;
            let result = self.look().await;
            service::walked(self.walker.state().size, self.walker.state().size.saturating_sub(before));
            let (verdict, answer) = match result {
                Err(Stopped::Altered(finding)) => {
                    let answer = tell::altered(&finding, &[], format);
                    (Verdict::Altered(finding), answer)
                }
                Ok((walked, outcome)) => {
                    is_reachable = true;
                    let answer = tell::outcome(&walked, &outcome, began.elapsed(), format);
                    (outcome.verdict, answer)
                }
                Err(Stopped::Failed(failure)) if failure.is_passing() => {
                    self.connection = None;
                    if std::mem::take(&mut is_reachable) {
                        shout(&format!("{failure}. Trying again every {} s", self.options.every.as_secs()));
                    }
                    service::reached(false);
                    let Some(verdict) = self.unheard() else {
                        sleep(self.options.every).await;
                        continue;
                    };
                    let remarks = vec![format!("nothing new was had: {failure}")];
                    let outcome = Outcome { verdict, accepted: None, remarks };
                    let walked = walk::walked(&self.walker, 0);
                    let answer = tell::outcome(&walked, &outcome, began.elapsed(), format);
                    (outcome.verdict, answer)
                }
                Err(Stopped::Failed(failure)) => return Err(failure),
            };
            service::judged(&verdict, self.quorum_time(), unix_now());
            let word = tell::word(&verdict);
            service::notify(&[NotifyState::Status(&format!("{word}, {} records", self.walker.state().size))]);
            stale_since = matches!(verdict, Verdict::Stale(_)).then(|| stale_since.unwrap_or(began));
            let is_over = match stale_since {
                Some(since) => since.elapsed() >= self.options.grace,
                None => matches!(verdict, Verdict::Altered(_)),
            };
            if is_over || told != Some(word) {
                say(&answer)?;
                told = Some(word);
            }
            if is_over {
                shout(&format!("the journal {} is {word}: the audit ends", self.judge.origin));
                return Ok(tell::code(&verdict));
            }
            sleep(self.options.every).await;
        }
    }

    /// While nothing is heard, the newest quorum gets old.
    fn unheard(&self) -> Option<Verdict> {
        let (time, now) = (self.quorum_time()?, unix_now());
        service::age(Some(time), now);
        let cosigned = self.walker.trust()?.cosigned()?.checkpoint.size;
        let have = self.walker.state().size;
        (now > time.saturating_add(STALE_AFTER_S)).then_some(Verdict::Stale(Stale::Old {
            have,
            known: cosigned,
            time,
            now,
        }))
    }

    fn quorum_time(&self) -> Option<u64> {
        self.walker.trust().and_then(Trust::quorum_time)
    }

    /// Walks what is new, and judges all of it.
    async fn look(&mut self) -> Result<(Walked, Outcome), Stopped> {
        let mut had = self.judge.views.gather().await?;
        let connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let (connection, guard) = self.global.connect_guarded().await?;
            self.remembered = views::of_account(guard.as_deref(), &self.judge.origin);
            connection
        };
        had.shown.extend(self.remembered.clone());
        let (shown, missing) = walk::served(&connection, &self.judge.origin).await?;
        service::reached(true);
        had.shown.extend(shown);
        had.missing.extend(missing);
        let now = self.options.now.unwrap_or_else(unix_now);
        let served = connection.head().await?;
        let (size, chain) = (served.size, chain_hash(&served)?);
        let (before, walked_chain) = (self.walker.state().size, self.walker.state().chain);
        if served.origin != self.judge.origin {
            let what =
                format!("the server has the journal {}, the trust file is for {}", served.origin, self.judge.origin);
            return Err(Failure::Usage(what).into());
        }
        if size < before {
            let by = Holder::Remembered("of the audit's own state".to_owned());
            let verdict = Verdict::Stale(Stale::Shorter { have: size, known: before, by });
            self.connection = Some(connection);
            return Ok((walk::walked(&self.walker, 0), Outcome { verdict, accepted: None, remarks: had.missing }));
        }
        if size == before && size > 0 && chain != walked_chain {
            let from = self.walker.trust().map_or(0, Trust::proved);
            let fault = Fault::Noted { size, chain: walked_chain, found: Some(chain) };
            return Err(Stopped::Altered(Finding { from, to: size, fault }));
        }
        if before == 0 {
            // What the journal succeeds is not in the trust file, and makes its genesis.
            self.walker = Walker::whole(walk::genesis(&served)?).held_to(Trust::new(self.judge.policy.clone()));
        }
        if let Some(trust) = self.walker.trust_mut() {
            trust.look_again();
        }
        self.expect(&connection, had.shown).await?;
        let mut bytes = 0;
        if size > before {
            let (file, mut kept) = (&self.file, Instant::now());
            let keep = |walker: &Walker, _| {
                if kept.elapsed() < KEEP_EVERY || walker.removed().is_err() {
                    return Ok(());
                }
                kept = Instant::now();
                file.keep(&saved(walker))
            };
            bytes = walk::explained(&connection, &mut self.walker, &self.options.reason, keep).await?;
        }
        if self.judge.cosigner.is_some() {
            walk::counted(&connection, &mut self.walker).await?;
        }
        self.connection = Some(connection);
        let mut walked = walk::walked(&self.walker, bytes);
        let outcome = self.judge.judge(&mut walked, now, had.missing)?;
        let saved = saved(&self.walker);
        if size > before || saved.accepted != self.kept {
            self.file.keep(&saved)?;
            self.kept = saved.accepted;
        }
        Ok((walked, outcome))
    }

    /// Demands what others hold. What lies behind the walk and was proved before needs no further proof.
    async fn expect(&mut self, connection: &Connection, shown: Vec<Shown>) -> Result<(), Stopped> {
        let at = self.walker.state().size;
        let is_proved = |shown: &Shown| {
            let checkpoint = shown.checkpoint();
            checkpoint.size < at && self.proved.get(&checkpoint.size) == Some(&checkpoint.root)
        };
        let (again, new): (Vec<Shown>, Vec<Shown>) = shown.into_iter().partition(is_proved);
        let behind: Vec<_> = new.iter().map(|shown| (shown.checkpoint().size, shown.checkpoint().root)).collect();
        walk::expect(connection, &mut self.walker, new).await?;
        self.proved.extend(behind.into_iter().filter(|(size, _)| *size < at));
        while self.proved.len() > PROVED_MAX {
            self.proved.pop_first();
        }
        for shown in again {
            if let Some(trust) = self.walker.trust_mut() {
                trust.proved_behind(shown).map_err(Stopped::Altered)?;
            }
        }
        Ok(())
    }
}

/// What is kept of a walk.
fn saved(walker: &Walker) -> Saved {
    let trust = walker.trust();
    Saved {
        state: walker.state().clone(),
        rotations: trust.map(|trust| trust.rotations().to_vec()).unwrap_or_default(),
        accepted: trust.and_then(Trust::cosigned).map(|judged| judged.note.clone()),
    }
}
