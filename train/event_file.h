// TensorBoard's event files: scalars by step, as TensorFlow's records of protocol buffers. Written
// here because they are small: a record is a length, its checksum, an Event and its checksum.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "runtime/atomic_file.h"

namespace spion {

// The checksum of a record's parts: CRC-32C, rotated and shifted (TFRecord's mask).
std::uint32_t masked_crc32c(std::string_view bytes);

class EventFile {
  public:
    // A new file events.out.tfevents.* in `folder`. first_step: steps done before this process; what
    // other files of the folder hold from the step after that on is told to be out of date, as it
    // was lost when the run stopped; with 0 those files are removed. Throws UserError when it cannot be written.
    EventFile(const std::filesystem::path& folder, std::int64_t first_step);

    // Written when flush() is called, or at the end.
    void scalar(std::string_view tag, std::int64_t step, double value);
    void flush();

  private:
    void record(std::string_view event);
    std::string pending_;
    OutputFile output_;
};

}  // namespace spion
