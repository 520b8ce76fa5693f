"""The measure of seams: a jump anywhere in the overlap fails it, a fade and the clip's own cuts do not."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from benchmarks._long_measures import beside_cuts, seam_ratio
from vdot_core.sampling.long import plan_chunks
from vdot_core.sampling.long.drift import fade

LENGTH, CHUNK, OVERLAP = 65, 17, 5
SPANS = plan_chunks(LENGTH, CHUNK, OVERLAP)


def moving(seed: int = 0) -> torch.Tensor:
    """A texture that moves evenly."""
    picture = torch.rand(1, 3, 8, 24, generator=torch.Generator().manual_seed(seed))
    picture = F.interpolate(picture, scale_factor=4, mode="bilinear")[0].movedim(0, -1)
    return 0.2 + 0.6 * torch.stack([picture.roll(number, 1) for number in range(LENGTH)])


def test_an_even_clip_has_no_seam():
    assert seam_ratio(moving(), SPANS) == pytest.approx(1, abs=0.05)
    assert not beside_cuts(moving()).any()


@pytest.mark.parametrize("offset", range(OVERLAP))
def test_a_jump_anywhere_in_the_overlap_is_a_seam(offset):
    clip = moving()
    for span in SPANS[1::2]:
        clip[span.start + 1 + offset : span.stop - OVERLAP + 1 + offset] += 0.1
    assert seam_ratio(clip, SPANS) > 1.5
    assert seam_ratio(clip, SPANS, beside_cuts(moving())) > 1.5


def test_a_fade_is_none():
    chunks = [moving()[span.start : span.stop] + 0.1 * (span.index % 2) for span in SPANS]
    video = chunks[0]
    for before, after in itertools.pairwise(chunks):
        both = fade(before[-OVERLAP + 1 :], after[1:OVERLAP], 0)
        video = torch.cat([video[: -OVERLAP + 1], both, after[OVERLAP:]])
    assert len(video) == LENGTH and seam_ratio(video, SPANS) < 1.5


def test_a_cut_of_the_clip_is_no_seam_and_hides_none():
    clip = moving()
    cut = SPANS[2].start + 2
    clip[cut:] = moving(1)[cut:]
    ignored = beside_cuts(clip)
    group = (cut - 1) // 4 * 4
    assert ignored.nonzero().flatten().tolist() == list(range(group, group + 5))
    assert seam_ratio(clip, SPANS) > 1.5 > seam_ratio(clip, SPANS, ignored)
    made = clip.clone()
    for span in (SPANS[1], SPANS[3]):
        made[span.start + 1 :] += 0.15
    assert seam_ratio(made, SPANS, ignored) > 1.5
