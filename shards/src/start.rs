//! Starting and stopping the shards, and the handle others hold.
//!
//! Runs on every shard. The designated one opens the catalogue, looks through the data directory
//! and gives every shard the first image; nothing is served before all have applied it.
//!
//! 1. `survey` looks, reading only, whether the directories can be taken over (`chronik doctor` asks the same
//!    code), so that a refusal leaves everything as it was.
//! 2. Each directory's identity, marker and checkpoints are read; the catalogue is replayed and begins its epoch.
//! 3. Every shard gets the image with what the checkpoints say of its logs (`remembered_logs`). After the clean
//!    stop that wrote it, a directory list that agrees in every name, size and time is all that is read: no file is
//!    opened. After a kill the file system is synced once, the last batch told of is compared, and what follows it
//!    is scanned (`chronik_log::recovery`): that depends on what came after the checkpoint, not on what there is.
//! 4. What a killed process had acknowledged and not written is put back (`replay` of `chronik-partition`).

mod directories;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use chronik_catalog::{Endpoint, Image};
use chronik_io::{DirEntry, Lost, World};
use chronik_log::LogError;
use chronik_partition::cache::{BatchCache, CacheLimits};
use chronik_partition::remembered_logs::RememberedLogs;
use chronik_partition::write_behind::LeftBehind;
use chronik_protocol::Str;
use chronik_protocol::configs::keys::broker;
use chronik_terms::PartitionId;

use crate::driver::{Driver, SettingsWatch};
use crate::identity::{DirectoryIdentity, IdentityError};
use crate::internal::{Boot, Internal, InternalAnswer, InternalReply, InternalRequest};
use crate::log_dirs::LogDirs;
use crate::metadata_log::{CatalogueError, Registration, open_catalogue};
use crate::meters::ShardMeters;
use crate::placement::{COORDINATOR_SHARD, shard_of};
use crate::questions::{Asked, Designated, Question};
use crate::request::{Reply, Request};
use crate::shard::{Shard, ShardOptions};
use crate::survey::{LastWriter, Survey, SurveyOptions};
use directories::{Look, open_dirs, sweep_all, tell_lost};

/// What the shards need to know of the broker; the same on every shard.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The first of `log.dirs`: absolute, locked by this process.
    pub data: PathBuf,
    /// The others. One that cannot be used is left out: its partitions are offline.
    pub more_data: Vec<PathBuf>,
    /// `node.id`.
    pub node_id: i32,
    /// For a directory that has no cluster id yet, or to be held against the one it has.
    pub cluster_id: Option<Str>,
    /// The advertised listeners, for the broker's registration.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<Str>,
    /// Bytes of each shard's write-behind ring (`chronik.writebehind.bytes`); 0 for none.
    pub write_behind_bytes: usize,
    /// Bytes each shard appends before it makes a checkpoint of its logs
    /// ([`REMEMBER_AFTER_BYTES`](crate::limits::REMEMBER_AFTER_BYTES); tests take fewer).
    pub remember_after_bytes: u64,
    /// Every broker setting that was given explicitly, by Kafka's names, checked.
    pub static_configs: BTreeMap<Str, Str>,
}

/// Why the shards cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directories hold what cannot be taken over; nothing in them was changed.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// The data directory belongs to somebody else.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The catalogue cannot be opened.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The data directory cannot be looked through.
    #[error("the data directory {}: {source}", path.display())]
    Data {
        /// Which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A directory that is left over cannot be removed.
    #[error(transparent)]
    Leftover(#[from] LogError),
    /// The designated shard could not start, and has said why.
    #[error("the catalogue's shard did not start: {0}")]
    Abandoned(Arc<str>),
}

impl StartError {
    /// Whether something is only too short, so that the next start may go better.
    fn is_not_now(&self) -> bool {
        match self {
            Self::Data { source, .. } => chronik_io::is_not_now(source),
            Self::Leftover(error) => error.is_not_now(),
            _ => false,
        }
    }
}

/// One shard as the rest of the broker on the same core sees it. Clones are the same shard.
#[derive(Clone)]
pub struct ShardHandle {
    endpoint: chronik_io::Endpoint<Request, Reply>,
    image: Rc<RefCell<Arc<Image>>>,
    meters: Arc<ShardMeters>,
    settings_watch: SettingsWatch,
    dirs: Arc<LogDirs>,
}

impl ShardHandle {
    /// The image this shard has applied, or is applying: a look, never a hop.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    /// Calls `watch` with the image at once, and with each later one in which settings of the broker
    /// differ, before who changed them is answered.
    pub fn watch_settings(&self, watch: impl Fn(&Image) + 'static) {
        watch(&self.image());
        *self.settings_watch.borrow_mut() = Some(Box::new(watch));
    }

    /// The way to every shard.
    pub fn endpoint(&self) -> &chronik_io::Endpoint<Request, Reply> {
        &self.endpoint
    }

    /// Asks one shard. When this returns the question is in its lane; the answer follows.
    pub async fn ask<Q: Question>(&self, shard: usize, question: Q) -> Asked<Q> {
        let request = question.into_request();
        Asked::new(self.endpoint.send(shard, request).await)
    }

    /// Asks the designated shard: the controller, whose answer comes after every shard has applied the
    /// change, or a coordinator, whose answer comes when what it tells is committed.
    pub async fn ask_designated<Q: Designated>(&self, question: Q) -> Asked<Q> {
        self.ask(COORDINATOR_SHARD, question).await
    }

    /// The shard that owns a partition.
    pub fn owner(&self, partition: PartitionId) -> usize {
        shard_of(&self.image.borrow(), partition, self.endpoint.count())
    }

    /// The directories that hold logs.
    pub fn log_dirs(&self) -> &LogDirs {
        &self.dirs
    }

    /// The meters of this shard, to be read from any thread.
    pub fn meters(&self) -> &Arc<ShardMeters> {
        &self.meters
    }

    /// Stops every shard: what was accepted is finished, logs are sealed, and the directory says
    /// that it was left in order. To be called once, on any shard; afterwards nothing is served.
    /// Gives whether the directories were left in order; where not, the next start looks through the logs.
    ///
    /// # Errors
    /// When the designated shard has ended.
    pub async fn stop(&self) -> Result<bool, Lost> {
        let reply = self.endpoint.call(COORDINATOR_SHARD, Request::Stop).await?;
        Ok(matches!(reply, Reply::Stopped { in_order: true }))
    }
}

/// Starts this shard; resolves when its partitions are open (on the designated shard: everybody's).
/// To be called on every shard of the mesh.
///
/// # Errors
/// See [`StartError`]. When the designated shard fails, every other fails too.
pub async fn start<W: World>(
    world: W,
    endpoint: chronik_io::Endpoint<Request, Reply>,
    options: &StartOptions,
) -> Result<ShardHandle, StartError> {
    let cluster_id = options.cluster_id.clone().unwrap_or_default();
    let empty = Image::new(cluster_id, options.node_id, options.static_configs.clone());
    let image = Rc::new(RefCell::new(Arc::new(empty.clone())));
    let shard = ShardOptions {
        index: endpoint.index(),
        count: endpoint.count(),
        // Its range begins at 1.
        retention_check_ms: broker::LOG_RETENTION_CHECK_INTERVAL_MS
            .among(&options.static_configs)
            .unsigned_abs(),
        write_behind_bytes: options.write_behind_bytes,
        remember_after_bytes: options.remember_after_bytes,
    };
    let state = Shard::new(world.clone(), &shard, Arc::new(empty.clone()));
    let settings_watch = SettingsWatch::default();
    let driver = Driver::start(
        world.clone(),
        endpoint.clone(),
        state,
        Rc::clone(&image),
        Rc::clone(&settings_watch),
    );
    if endpoint.index() == COORDINATOR_SHARD {
        match boot(&world, &driver, options, empty).await {
            Ok(boot) => {
                let load = || Request::Internal(InternalRequest(Internal::Load(Arc::clone(&boot))));
                let loaded = driver.ask_all(load).await;
                drop_left_behind(&world, &boot, loaded).await?;
            }
            Err(error) => {
                let reason: Arc<str> = Arc::from(error.to_string());
                let abandon = || {
                    let reason = Arc::clone(&reason);
                    Request::Internal(InternalRequest(Internal::Abandon(reason)))
                };
                driver.ask_all(abandon).await;
                return Err(error);
            }
        }
    }
    driver.wait_loaded().await.map_err(StartError::Abandoned)?;
    let dirs = driver.dirs();
    let meters = driver.meters();
    Ok(ShardHandle {
        dirs,
        endpoint,
        image,
        meters,
        settings_watch,
    })
}

/// Opens the catalogue and finds out what the last run left.
async fn boot<W: World>(
    world: &W,
    driver: &Driver<W>,
    options: &StartOptions,
    mut empty: Image,
) -> Result<Arc<Boot>, StartError> {
    let data = &options.data;
    let (is_foreign, failed) = survey(world, options).await?;
    world.create_dir_all(data).await.map_err(about(data))?;
    let wanted = options.cluster_id.as_ref();
    let identity = DirectoryIdentity::load_or_create(world, data, options.node_id, wanted).await?;
    empty.cluster_id = identity.cluster_id.clone();
    let mut dirs = open_dirs(world, options, &identity, &failed).await?;
    let (mut look, durable) = look_into(world, &mut dirs, is_foreign).await?;
    let clean = look.clean;

    // The shard's own cache is in use by nobody yet, but lives behind a cell.
    let mut cache = BatchCache::new(CacheLimits::default());
    let first = identity.directory_id;
    let how = (
        clean.is_some(),
        durable && !look.not_durable.contains(&first),
    );
    let mut opened = open_catalogue(world, &mut cache, data, empty, how).await?;
    look.settle(world, &mut dirs, &opened.image).await?;
    let moves = look.moves(world, &mut dirs, (&opened.image, is_foreign));
    let mut moves = moves.await?;
    // Before the catalogue learns that partitions were moved: the files speak of where they were.
    let (offsets, dead) = look.numbers(&dirs, &opened.image);
    let ended = look.end(world, &mut dirs, &mut moves, (&opened.image, &offsets));
    ended.await?;
    let registration = Registration {
        endpoints: options.endpoints.clone(),
        rack: options.rack.clone(),
        identity,
        dirs: Arc::new(dirs),
        found: look.found,
    };
    let begun = opened.begin_epoch(world, &mut cache, data, &registration);
    begun.await?;
    let mut dirs = LogDirs::clone(&registration.dirs);
    let placings = moves.late();
    let left = sweep_all(world, &mut dirs, (&opened, &placings)).await?;
    let left_behind = left_behind(world, data, &look.entries, &opened.image).await;
    let boot = Arc::new(Boot {
        image: Arc::new(opened.image),
        hints: offsets.hints((clean.is_some(), durable)),
        cleaned: offsets.cleaned.clone(),
        dirs: Arc::new(dirs),
        found: registration.found.0,
        clean,
        durable,
        not_durable: look.not_durable,
        placings,
        remembered: look.remembered,
        boot_id: world.boot_id().await.map_err(about(data))?,
        left_behind: left_behind.map_err(about(data))?,
        removed: opened.removed,
    });
    let (log, bytes) = (opened.partition, opened.uncovered_bytes);
    driver.step(|state| {
        state.adopt_catalogue(log, bytes, (offsets, dead), &boot);
        state.left_over(left);
    });
    Ok(boot)
}

/// What the last run left, and whether all of it is durable.
async fn look_into<W: World>(
    world: &W,
    dirs: &mut LogDirs,
    is_foreign: bool,
) -> Result<(Look, bool), StartError> {
    let mut look = Look::into(world, dirs).await?;
    let data = dirs.first().to_owned();
    look.entries = world.list_dir(&data).await.map_err(about(&data))?;
    // Whoever led since may have changed any log.
    if !is_foreign {
        let remembered = RememberedLogs::find(world, &data, &look.entries).await;
        look.remembered = remembered.map_err(about(&data))?;
    }
    // What a killed process, or another program, has written may be in memory only: nobody must build
    // on it before it is durable. What our own clean stop left is.
    let is_ours = |epoch| look.remembered.are_of_run(epoch);
    let durable = !look.clean.is_some_and(is_ours);
    // Where there is no log, nothing is built on: on a busy disk that saves a first start 0.1 to 0.4 s.
    if durable && !look.found.0.is_empty() {
        look.sync(world, dirs).await?;
    }
    Ok((look, durable))
}

/// Looks before anything is changed; says whether another broker wrote the directories last, and which
/// of them cannot be read.
async fn survey<W: World>(
    world: &W,
    options: &StartOptions,
) -> Result<(bool, Vec<PathBuf>), StartError> {
    let found = Survey::take(
        world,
        SurveyOptions {
            data: &options.data,
            more_data: &options.more_data,
            node_id: Some(options.node_id),
            cluster_id: options.cluster_id.as_ref(),
            count_logs: false,
        },
    );
    let found = found.await;
    if !found.refusals.is_empty() {
        return Err(StartError::Refused(found.refusals));
    }
    let is_foreign = found.last_writer == LastWriter::Kafka;
    if is_foreign {
        tracing::info!(
            data = %options.data.display(),
            metadata_version = found.metadata_version.unwrap_or_default(),
            clean = found.is_clean,
            topics = found.topics,
            partitions = found.partitions,
            "taking over from Kafka"
        );
    }
    if let Some(offline) = &found.offline {
        tracing::error!("{offline}");
    }
    for note in found.warnings.iter().chain(&found.notes) {
        tracing::warn!("{note}");
    }
    let mut failed = Vec::new();
    for dir in &found.dirs {
        if let Some(failure) = &dir.failure {
            tell_lost(&dir.path, failure);
            failed.push(dir.path.clone());
        }
    }
    Ok((is_foreign, failed))
}

/// What the rings hold of partitions that are there.
async fn left_behind<W: World>(
    world: &W,
    data: &Path,
    entries: &[DirEntry],
    image: &Image,
) -> io::Result<LeftBehind> {
    let mut found = LeftBehind::find(world, data, entries).await?;
    found.retain_known(|id| knows(image, id));
    Ok(found)
}

fn knows(image: &Image, id: PartitionId) -> bool {
    let topic = image.topic_by_id(id.topic_id);
    let partitions = topic.map_or(0, |topic| topic.partitions.len());
    usize::try_from(id.index).is_ok_and(|index| index < partitions)
}

/// Everything left behind is in the logs now: the next crash begins with these.
async fn drop_left_behind<W: World>(
    world: &W,
    boot: &Boot,
    loaded: Vec<Option<Reply>>,
) -> Result<(), StartError> {
    let mut offline = BTreeSet::new();
    for reply in loaded {
        match reply {
            Some(Reply::Internal(InternalReply(InternalAnswer::Loaded { failed }))) => {
                offline.extend(failed);
            }
            // A shard that has ended takes the process with it.
            _ => return Ok(()),
        }
    }
    let removed = boot.left_behind.remove(world, &offline).await;
    removed.map_err(about(boot.dirs.first()))
}

fn about(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Data { path, source }
}
