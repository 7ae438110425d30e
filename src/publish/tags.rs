//! The tags of an image: what they point to before, which of them can be moved, and the pointing itself.

use bytes::Bytes;

use super::{Request, Target, window};
use crate::event::{PlannedTag, TagStep};
use crate::image::Image;
use crate::oci::Digest;
use crate::problem::{Problem, Result, together};
use crate::registry::pull::Selector;
use crate::registry::push::immovable;

/// The tag that names an image of `bin` by its digest.
#[must_use]
pub fn digest_tag(bin: &str, digest: &Digest) -> String {
    format!("{bin}-{}", digest.short())
}

/// The tags that the image of this digest gets; the one with its digest is missing while that is not known.
pub(super) fn names(request: &Request<'_>, digest: Option<&Digest>) -> Vec<String> {
    let mut tags = request.tags.to_vec();
    let own = digest.filter(|_| request.digest_tag).map(|digest| digest_tag(request.bin, digest));
    tags.extend(own.filter(|own| !request.tags.contains(own)));
    tags
}

/// What each tag points to now, in their order.
pub(super) async fn look(target: &Target, tags: &[String]) -> Result<Vec<Option<Digest>>> {
    let jobs = tags.iter().enumerate().map(|(index, tag)| async move {
        let selector = Selector::Tag(tag.clone());
        Ok((index, target.client.head_manifest(&target.repository, &selector).await?))
    });
    let mut found = window::run(jobs, target.client.throttled()).await?;
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, digest)| digest).collect())
}

/// What becomes of each tag that points to what `current` says.
pub(super) fn plan(request: &Request<'_>, digest: Option<Digest>, current: Vec<Option<Digest>>) -> Vec<PlannedTag> {
    let step = |current: Option<Digest>| match current {
        None => TagStep::Create,
        Some(_) if current == digest => TagStep::Stay,
        Some(_) => TagStep::Move,
    };
    let planned = |(tag, current): (String, Option<Digest>)| PlannedTag {
        immutable: request.immutable.contains(&tag),
        step: step(current),
        digest: current,
        tag,
    };
    names(request, digest.as_ref()).into_iter().zip(current).map(planned).collect()
}

/// Refuses an image of `digest` if one of its tags is taken and cannot be moved: none is moved then, and all are named.
///
/// # Errors
/// When there is such a tag.
pub(super) fn refuse(target: &Target, planned: &[PlannedTag], digest: &Digest) -> Result<()> {
    let taken = planned.iter().filter(|tag| tag.immutable);
    let taken: Vec<_> =
        taken.filter_map(|tag| Some((tag.tag.as_str(), tag.digest.filter(|current| current != digest)?))).collect();
    if taken.is_empty() { Ok(()) } else { Err(immovable(&target.shown(), &taken, digest)) }
}

/// Points each tag to the image, unless it does already; returns them all. Those that were not `looked_at` just now
/// are, unless the image is new to the repository: no tag points to it then.
///
/// # Errors
/// When one cannot be: it says which are, and which are not.
pub(super) async fn put(
    target: &Target,
    request: &Request<'_>,
    image: &Image,
    looked_at: &[PlannedTag],
    is_new: bool,
) -> Result<Vec<String>> {
    let digest = image.digest();
    let bytes = &Bytes::copy_from_slice(&image.manifest);
    let tags = names(request, Some(&digest));
    let puts = tags.iter().map(|tag| async move {
        let (client, selector) = (&target.client, Selector::Tag(tag.clone()));
        let current = match looked_at.iter().find(|seen| seen.tag == *tag) {
            Some(seen) => seen.digest,
            None if is_new => None,
            None => client.head_manifest(&target.repository, &selector).await?,
        };
        if current == Some(digest) {
            return Ok(());
        }
        let media_type = &image.manifest_descriptor.media_type;
        client.put_manifest(&target.repository, &selector, media_type, bytes).await
    });
    // Each of them, whatever becomes of the others: who reads of one that failed wants to know of all.
    let jobs = puts.enumerate().map(|(index, put)| async move { Ok((index, put.await)) });
    let mut outcomes = window::run(jobs, target.client.throttled()).await?;
    outcomes.sort_by_key(|(index, _)| *index);
    let (mut there, mut lacking, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (tag, (_, outcome)) in tags.into_iter().zip(outcomes) {
        if outcome.is_ok() { &mut there } else { &mut lacking }.push(format!("`{tag}`"));
        all.push(outcome.map(|()| tag).map_err(Problem::from));
    }
    let under = if there.is_empty() { String::new() } else { format!(", under {}", there.join(" and ")) };
    let (shown, lacking) = (target.shown(), lacking.join(" nor "));
    let what = || format!("the image is in `{shown}` as {digest}{under}, but not under {lacking}");
    together(all, "tags").map_err(|problem| problem.context(what()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_stays_only_where_it_points_to_the_image_that_is_known() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let (tags, immutable) = (["v1", "v2", "v3"].map(str::to_owned), ["v2".to_owned()]);
        let request = Request { package: "p", bin: "app", tags: &tags, immutable: &immutable, digest_tag: true };
        let steps = |digest, current: &[Option<Digest>]| -> Vec<_> {
            let planned = plan(&request, digest, current.to_vec()).into_iter();
            planned.map(|tag| (tag.tag, tag.step, tag.immutable)).collect()
        };
        let own = digest_tag("app", &new);
        assert_eq!(
            steps(Some(new), &[None, Some(old), Some(new), None]),
            [
                ("v1".to_owned(), TagStep::Create, false),
                ("v2".to_owned(), TagStep::Move, true),
                ("v3".to_owned(), TagStep::Stay, false),
                (own, TagStep::Create, false),
            ]
        );
        let unknown = steps(None, &[None, Some(old), Some(new)]);
        let unknown: Vec<_> = unknown.into_iter().map(|(tag, step, _)| (tag, step)).collect();
        let expected = [("v1", TagStep::Create), ("v2", TagStep::Move), ("v3", TagStep::Move)];
        assert_eq!(unknown, expected.map(|(tag, step)| (tag.to_owned(), step)));
    }
}
