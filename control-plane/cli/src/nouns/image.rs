//! `bmi image`.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmi_api::{
    Image, ImageState, NewImage, NewImageBody, NewImageImport, NewImageImportStored, Operation, Sharing,
    SharingPatch, Visibility,
};
use bmi_types::{ByteSize, ImageFormat, Name};
use bytes::Bytes;
use clap::Subcommand;
use reqwest::{Method, Response};

use crate::Session;
use crate::client::{Client, part};
use crate::failure::Failure;
use crate::output::Column;
use crate::wait::{bar, follow, is_away};

/// Bytes sent with one request: a break costs at most this much again.
const CHUNK: usize = 32 << 20;
/// How often an upload goes on after a break: a control plane is back in seconds.
const BREAKS_MAX: u32 = 8;
/// Pause after the first break; each next one is longer by as much.
const BREAK_PAUSE: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Lists a project's images.
    List,
    /// Shows an image.
    Show {
        /// Its name or id.
        image: String,
    },
    /// Uploads a disk image. Run it again to go on after a break; add --seal to seal it at the end.
    Upload {
        /// Its name: a lower-case DNS label.
        name: Name,
        /// The file.
        #[arg(long)]
        file: PathBuf,
        /// How the file holds the disk: raw or qcow2. It is never guessed; what is not raw is converted when it is
        /// sealed.
        #[arg(long, default_value_t)]
        format: ImageFormat,
        /// Seal it when all bytes are there.
        #[arg(long)]
        seal: bool,
    },
    /// Imports a file from the server's import directory, or an image from its store, and seals it.
    #[command(group(clap::ArgGroup::new("source").required(true).args(["file", "rbd"])))]
    Import {
        /// Its name: a lower-case DNS label.
        name: Name,
        /// A relative path below the server's import_dir.
        #[arg(long)]
        file: Option<String>,
        /// How the file holds the disk: raw or qcow2. It is never guessed.
        #[arg(long, default_value_t, conflicts_with = "rbd")]
        format: ImageFormat,
        /// An RBD image in the server's import namespace, as it is now or as it was at a snapshot. It is copied.
        #[arg(long, value_name = "NAME[@SNAPSHOT]")]
        rbd: Option<String>,
    },
    /// Makes an uploaded image immutable: a golden image.
    Seal {
        /// Its name or id.
        image: String,
    },
    /// Shows or changes who else may clone an image. What was cloned stays.
    Share {
        /// Its name or id.
        image: String,
        /// A project that may clone it: its id, or its name if you see it; may be given several times.
        #[arg(long = "with", value_name = "PROJECT")]
        with: Vec<String>,
        /// Every project may clone it.
        #[arg(long, conflicts_with = "with")]
        public: bool,
        /// Only its owner may clone it.
        #[arg(long, conflicts_with_all = ["with", "public"])]
        private: bool,
    },
    /// Deletes an image that nothing was cloned from.
    Delete {
        /// Its name or id.
        image: String,
    },
}

const COLUMNS: &[Column<Image>] = &[
    ("NAME", |image| image.name.to_string()),
    ("STATE", |image| image.state.to_string()),
    ("VISIBLE", |image| image.visibility.to_string()),
    ("SIZE", |image| image.virtual_size.to_string()),
    ("UPLOADED", |image| image.upload.as_ref().map(|upload| upload.offset.to_string()).unwrap_or_default()),
    ("SHA256", |image| image.sha256.as_deref().unwrap_or_default().chars().take(16).collect()),
    ("ID", |image| image.id.to_string()),
];

const SHARING: &[Column<Sharing>] = &[
    ("VISIBILITY", |sharing| sharing.visibility.to_string()),
    ("PROJECTS", |sharing| sharing.projects.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let (client, output) = (&session.client, &session.output);
    let images = format!("/v1/projects/{}/images", part(session.project()?)?);
    match verb {
        Verb::List => output.list(&client.list::<Image>(&images).await?, COLUMNS),
        Verb::Show { image } => {
            output.one(&client.get(&format!("{images}/{}", part(&image)?)).await?, COLUMNS)
        }
        Verb::Upload { name, file, format, seal } => {
            let image = upload(session, &images, name, &file, format).await?;
            if !seal {
                return output.one(&image, COLUMNS);
            }
            let path = format!("{images}/{}/seal", image.id);
            let operation: Operation = client.post(&path, &serde_json::json!({})).await?;
            follow(session, operation).await
        }
        Verb::Import { name, file, format, rbd } => {
            let new = match (file, rbd) {
                (_, Some(source)) => NewImageBody::ImportStored(NewImageImportStored { name, source }),
                (Some(file), None) => NewImageBody::Import(NewImageImport { name, file, format }),
                (None, None) => return Err(Failure::usage("name what to import: --file or --rbd")),
            };
            follow(session, client.post(&images, &new).await?).await
        }
        Verb::Seal { image } => {
            let path = format!("{images}/{}/seal", part(&image)?);
            follow(session, client.post(&path, &serde_json::json!({})).await?).await
        }
        Verb::Share { image, with, public, private } => {
            let path = format!("{images}/{}/sharing", part(&image)?);
            let visibility = match (public, private, with.is_empty()) {
                (true, _, _) => Visibility::Public,
                (_, true, _) => Visibility::Private,
                (_, _, false) => Visibility::Shared,
                _ => return output.one(&client.get::<Sharing>(&path).await?, SHARING),
            };
            let projects = (visibility == Visibility::Shared).then_some(with);
            output.one(&client.patch(&path, &SharingPatch { visibility, projects }, None).await?, SHARING)
        }
        Verb::Delete { image } => {
            follow(session, client.delete_later(&format!("{images}/{}", part(&image)?)).await?).await
        }
    }
}

/// Sends one chunk, and answers where to go on.
async fn send(client: &Client, content: &str, offset: u64, chunk: Bytes) -> Result<u64, Failure> {
    let request = client.request(Method::PATCH, content);
    moved(&client.send(request.header("Upload-Offset", offset.to_string()).body(chunk)).await?)
}

/// Asks where an upload goes on.
async fn where_to_go_on(client: &Client, content: &str) -> Result<u64, Failure> {
    moved(&client.send(client.request(Method::HEAD, content)).await?)
}

fn moved(answer: &Response) -> Result<u64, Failure> {
    let moved = answer.headers().get("upload-offset").and_then(|value| value.to_str().ok()?.parse().ok());
    moved.ok_or_else(|| Failure::usage("the server did not say where the upload is"))
}

/// The size of the disk that a qcow2 file declares; the server looks at everything else.
fn qcow2_size(file: &std::fs::File) -> Option<ByteSize> {
    let mut head = [0; 32];
    file.read_exact_at(&mut head, 0).ok()?;
    let size = head.get(24..32)?.try_into().ok().map(u64::from_be_bytes)?;
    head.starts_with(b"QFI\xfb").then_some(ByteSize::new(size))
}

/// Creates the image when it is not there, and sends what is missing.
#[expect(clippy::print_stderr, reason = "progress goes to standard error, results to standard output")]
async fn upload(
    session: &Session,
    images: &str,
    name: Name,
    path: &Path,
    format: ImageFormat,
) -> Result<Image, Failure> {
    let client = &session.client;
    let fail = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let image: Image = match client.get(&format!("{images}/{name}")).await {
        Ok(image) => image,
        Err(Failure::Refused(problem)) if problem.status == 404 => {
            let new = match format {
                ImageFormat::Raw => {
                    NewImage { name, format, virtual_size: ByteSize::new(size), file_size: None }
                }
                ImageFormat::Qcow2 => {
                    let virtual_size = qcow2_size(&file)
                        .ok_or_else(|| Failure::usage(format!("{} is not a qcow2 file", path.display())))?;
                    NewImage { name, format, virtual_size, file_size: Some(ByteSize::new(size)) }
                }
            };
            client.post(images, &new).await?
        }
        Err(failure) => return Err(failure),
    };
    let unfinished = image.upload.as_ref().filter(|upload| upload.size.bytes() == size);
    if unfinished.is_none() || image.format != format || image.state != ImageState::Open {
        let text = format!(
            "image `{}` is {}, {} with {} bytes; it is not an unfinished upload of these {size} bytes",
            image.name,
            image.state,
            image.format,
            image.upload.as_ref().map_or(image.virtual_size, |upload| upload.size).bytes()
        );
        return Err(Failure::usage(text));
    }
    let bar = bar(Some(size), "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let content = format!("{images}/{}/content", image.id);
    let (mut breaks, mut told) = (0, 0);
    let mut offset = image.upload.as_ref().map_or(0, |upload| upload.offset.bytes());
    while offset < size {
        bar.set_position(offset);
        let length = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = vec![0; length];
        file.read_exact_at(&mut chunk, offset).map_err(fail)?;
        offset = match send(client, &content, offset, Bytes::from(chunk)).await {
            Ok(moved) => moved,
            // The server knows how much it has; what was sent twice is not kept twice.
            Err(failure) if is_away(&failure) && breaks < BREAKS_MAX => {
                breaks += 1;
                tokio::time::sleep(BREAK_PAUSE * breaks).await;
                where_to_go_on(client, &content).await.unwrap_or(offset)
            }
            Err(failure) => {
                bar.abandon();
                return Err(failure);
            }
        };
        let tenth = offset * 10 / size;
        if bar.is_hidden() && tenth > told {
            told = tenth;
            eprintln!("  {} %", tenth * 10);
        }
    }
    bar.finish_and_clear();
    client.get(&format!("{images}/{}", image.id)).await
}
