// Pathfinder (Linsley, Kim, Veerabadran, Windolf, Serre: Learning long-range spatial dependencies
// with horizontal gated recurrent units, NeurIPS 2018): two dashed contours and two discs in a
// picture of 32 x 32; label 1 when both discs lie on the ends of one contour. With the parameters of
// Long Range Arena's hard level: contours of 14 dashes, up to five distractors of 4.
#pragma once

#include <cstdint>

#include "train/data/pictures.h"

namespace spion {

constexpr int kPathfinderEdge = 32;

struct PathfinderPicture {
    std::uint8_t pixels[kPathfinderEdge * kPathfinderEdge];
    int label = 0;
    int restarts = 0;     // of the two contours, until both had room
    int distractors = 0;  // that found room
    double reach = 0;     // mean distance from the first to the last point of a contour, in pixels
};

// Picture `index` of split `split`: a function of the arguments alone.
PathfinderPicture generate_pathfinder(std::uint64_t seed, int split, std::int64_t index);

// The first `count` pictures of a split, made on `threads` threads; the result does not depend on
// how many.
PictureSamples generate_pathfinder_split(std::uint64_t seed, int split, std::int64_t count,
                                         int threads);

}  // namespace spion
