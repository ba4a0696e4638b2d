#include "train/phases.h"

#include "train/training.h"

namespace spion {

TrainReport train(const TrainSettings& settings, const TaskData& data, Device& device,
                  KernelCache& cache, RunFolder& folder, Progress& progress, const Checkpoint* from,
                  Communicator* ranks) {
    Alone alone;
    Training training(settings, data, device, cache, folder, progress, from,
                      ranks == nullptr ? alone : *ranks);
    while (training.goes_on() && !training.turns_sparse()) training.step();  // dense phase
    if (training.turns_sparse()) {
        training.turn_sparse();                      // transition
        while (training.goes_on()) training.step();  // sparse phase
    }
    return training.finish();
}

}  // namespace spion
