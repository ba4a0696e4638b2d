#include "runtime/ranks/open.h"

#include "ir/error.h"
#include "runtime/ranks/shared_memory.h"
#ifdef SPION_CUDA_BACKEND
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/nccl.h"
#endif

namespace spion {
namespace {

std::string invite([[maybe_unused]] Device& device, const Rank& rank) {
    if (!rank.leads()) return {};
#ifdef SPION_CUDA_BACKEND
    if (dynamic_cast<CudaDevice*>(&device) != nullptr) return Nccl::invitation();
#endif
    return SharedMemory::invitation(rank);
}

std::unique_ptr<Communicator> communicator_of(Device& device, Meeting& meeting) {
#ifdef SPION_CUDA_BACKEND
    if (auto* gpu = dynamic_cast<CudaDevice*>(&device)) {
        return std::make_unique<Nccl>(*gpu, meeting);
    }
#endif
    return std::make_unique<SharedMemory>(device, meeting);
}

}  // namespace

Job::Job(const Rank& rank, const std::filesystem::path& folder, const MeetingTimes& times) {
    if (!rank.alone()) meeting_ = std::make_unique<Meeting>(rank, folder, times);
}

std::unique_ptr<Communicator> Job::connect(Device& device) {
    if (!meeting_) return std::make_unique<Alone>();
    const std::string invitation = invite(device, meeting_->rank());
    try {
        meeting_->begin(invitation);
        return communicator_of(device, *meeting_);
    } catch (...) {
        SharedMemory::withdraw(invitation);
        throw;
    }
}

void Job::tell_failure(const std::string& reason) {
    if (meeting_) meeting_->tell_failure(reason);
}

}  // namespace spion
