//! The files of a repository at a commit, as the hub lists them.

use reqwest::{Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::{Client, Part, Target, malformed, shown};
use super::names::{is_commit, is_hex, is_inside, is_repo_id};
use super::retry::{Attempts, Failed};
use super::{ContentId, HubError, HubFile, Listing, Repo};

/// The largest answer that is read; the pages of the hub have at most some 1 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The most files of a repository; the hub itself advises against more than 100,000.
const FILES_MAX: usize = 1_000_000;
/// The most bytes of all their paths.
const PATH_BYTES_MAX: usize = 256 << 20;
/// The most pages; one has 1,000 files, or 50 on request.
const PAGES_MAX: usize = 20_000;

/// The part of `/api/models/{id}/revision/{revision}` that matters.
#[derive(Deserialize)]
struct Info {
    id: Option<String>,
    sha: String,
}

/// One line of `/api/models/{id}/tree/{commit}`.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<LargeFile>,
}

/// What stands in git for a large file.
#[derive(Deserialize)]
struct LargeFile {
    oid: String,
    size: u64,
}

/// Asks for the commit of `revision`, then for its files, page after page.
pub(super) fn list(client: &Client, repo: &Repo, revision: &str) -> Result<Listing, HubError> {
    let url = client.api_url(repo, &["revision", revision])?;
    let target = Target { url, repo: repo.clone(), part: Part::Revision(revision.to_owned()) };
    let (info, _): (Info, _) = json(client, &target)?;
    if !is_commit(&info.sha) || (is_commit(revision) && info.sha != revision) {
        return Err(malformed(&target.url, "its commit is not one"));
    }
    let id = info.id.unwrap_or_else(|| repo.id.clone());
    if !is_repo_id(&id) {
        return Err(malformed(&target.url, "the name of the repository is not one"));
    }
    let repo = Repo { kind: repo.kind, id };
    let files = tree(client, &repo, &info.sha)?;
    Ok(Listing { repo, commit: info.sha, files })
}

fn tree(client: &Client, repo: &Repo, commit: &str) -> Result<Vec<HubFile>, HubError> {
    let mut url = client.api_url(repo, &["tree", commit])?;
    url.set_query(Some("recursive=true"));
    let mut target = Target { url, repo: repo.clone(), part: Part::Revision(commit.to_owned()) };
    let mut files: Vec<HubFile> = Vec::new();
    let mut path_bytes = 0;
    for _ in 0..PAGES_MAX {
        let (entries, next): (Vec<Entry>, _) = json(client, &target)?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            path_bytes += entry.path.len();
            if files.len() == FILES_MAX || path_bytes > PATH_BYTES_MAX {
                return Err(malformed(&target.url, &format!("it lists more than {FILES_MAX} files")));
            }
            files.push(entry.file(repo, commit, &target.url)?);
        }
        // Only where the next page begins is taken from the answer, so that it leads to no other place.
        match next {
            Some(query) if Some(query.as_str()) != target.url.query() => target.url.set_query(Some(&query)),
            Some(_) => return Err(malformed(&target.url, "a page follows itself")),
            None => {
                files.sort_by(|a, b| a.path.cmp(&b.path));
                if files.windows(2).any(|pair| pair[0].path == pair[1].path) {
                    return Err(malformed(&target.url, "it lists a file twice"));
                }
                return Ok(files);
            }
        }
    }
    Err(malformed(&target.url, &format!("it has more than {PAGES_MAX} pages")))
}

impl Entry {
    fn file(self, repo: &Repo, commit: &str, url: &Url) -> Result<HubFile, HubError> {
        if !is_inside(&self.path) {
            let name = self.path.chars().take(200).collect();
            return Err(HubError::FileName { repo: repo.clone(), commit: commit.to_owned(), name });
        }
        let (content, size) = match self.lfs {
            Some(large) => (large.oid.parse().ok().map(ContentId::Sha256), large.size),
            None => (is_hex(&self.oid, 40).then_some(ContentId::GitSha1(self.oid)), self.size),
        };
        let fault = || malformed(url, &format!("file {:?} has no digest", self.path));
        let content = content.ok_or_else(fault)?;
        Ok(HubFile { path: self.path, size, content })
    }
}

/// An answer, and the query of the page after it.
fn json<T: DeserializeOwned>(client: &Client, target: &Target) -> Result<(T, Option<String>), HubError> {
    let mut attempts = Attempts::new(&client.settings().retry);
    loop {
        match json_once(client, target) {
            Ok(answer) => return Ok(answer),
            Err(failed) => attempts.wait_after(failed)?,
        }
    }
}

fn json_once<T: DeserializeOwned>(client: &Client, target: &Target) -> Result<(T, Option<String>), Failed> {
    let response = client.get(target, None)?;
    let next = next_page(&response, &target.url);
    let body = body(client, response, &target.url)?;
    let fault = |error| malformed(&target.url, &format!("it is not the JSON that a hub sends ({error})"));
    Ok((serde_json::from_slice(&body).map_err(fault)?, next))
}

fn body(client: &Client, response: Response, url: &Url) -> Result<Vec<u8>, Failed> {
    let expected = response.content_length();
    let mut body = Vec::new();
    let mut rest = Some(response);
    while let Some(response) = rest.take() {
        let Some((response, chunk)) = client.chunk(response)? else { break };
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(malformed(url, &format!("it has more than {ANSWER_BYTES_MAX} bytes")).into());
        }
        body.extend_from_slice(&chunk);
        rest = Some(response);
    }
    let at = body.len() as u64;
    match expected {
        Some(size) if size != at => Err(Failed::passing(HubError::Broken { url: shown(url), at, size })),
        _ => Ok(body),
    }
}

/// The query of `Link: <address>; rel="next"`.
fn next_page(response: &Response, url: &Url) -> Option<String> {
    let links = response.headers().get_all(reqwest::header::LINK);
    links.iter().filter_map(|link| link.to_str().ok()).find_map(|links| next_query(links, url))
}

fn next_query(links: &str, url: &Url) -> Option<String> {
    // A `,` may stand in an address as well, which is why links are told apart by their `<`.
    links.split('<').find_map(|link| {
        let (address, parameters) = link.split_once('>')?;
        let is_next = parameters.split([';', ',']).any(|parameter| {
            matches!(parameter.trim().split_once('='), Some((name, value))
                if name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next")
        });
        let next = is_next.then(|| url.join(address).ok())??;
        next.query().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::RepoKind;

    #[test]
    fn links_lead_to_the_next_page() {
        let url = Url::parse("https://hub/api/models/a/b/tree/x?recursive=true").expect("an address");
        let check = |links: &str, expected: Option<&str>| {
            assert_eq!(next_query(links, &url).as_deref(), expected, "{links}");
        };
        check("<https://hub/api/models/a/b/tree/x?cursor=a,b%3D>; rel=\"next\"", Some("cursor=a,b%3D"));
        check("<https://other/else?cursor=c>; rel=next", Some("cursor=c"));
        check("</tree?c=0>; rel=\"prev\", </tree?c=2>; title=\"x\"; Rel = \"next\"", Some("c=2"));
        check("</tree?c=0>; rel=\"last\"", None);
        check("</tree>; rel=\"next\"", None);
        check("next", None);
    }

    #[test]
    fn entries_of_a_tree_are_checked() {
        let url = Url::parse("https://hub/tree").expect("an address");
        let repo = Repo { kind: RepoKind::Model, id: "a/b".to_owned() };
        let sha1 = "0a".repeat(20);
        let sha256 = "0b".repeat(32);
        let read = |json: serde_json::Value| {
            let entry: Entry = serde_json::from_value(json).expect("an entry");
            entry.file(&repo, &sha1, &url)
        };
        let plain = serde_json::json!({"type": "file", "oid": sha1, "size": 7, "path": "x/y"});
        let expected = HubFile { path: "x/y".into(), size: 7, content: ContentId::GitSha1(sha1.clone()) };
        assert_eq!(read(plain.clone()).expect("plain"), expected);
        let mut large = plain.clone();
        large["lfs"] = serde_json::json!({"oid": sha256, "size": 9, "pointerSize": 3});
        let found = read(large.clone()).expect("large");
        assert_eq!((found.content.to_string(), found.size), (sha256, 9));
        large["lfs"]["oid"] = "sha256:0".into();
        assert!(matches!(read(large), Err(HubError::Answer { .. })));
        for name in ["../x", "/x", "a\\b", "a//b"] {
            let mut hostile = plain.clone();
            hostile["path"] = name.into();
            let error = read(hostile).expect_err(name);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    }
}
