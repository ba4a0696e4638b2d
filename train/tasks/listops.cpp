// ListOps: Long Range Arena's files, or expressions generated like them.
#include <fmt/format.h>

#include "ir/error.h"
#include "runtime/threads.h"
#include "train/data/listops.h"
#include "train/data/lra_tsv.h"
#include "train/task.h"

namespace spion {
namespace {

void paper(TrainSettings& /*s*/) {}  // the defaults are ListOps'

void demo(TrainSettings& s) {
    s.steps = 800;
    s.batch = 16;
    s.eval_every = 100;
    s.length = 1024;  // long enough for attention to be most of a dense step
    s.layers = 2;
    s.learning_rate = 4e-3;
    s.warmup = 50;
    s.discovery.block = 32;
    s.discovery.quantile = 0.95;
    s.discovery.density = 0.07;
    s.transition_step = 250;  // in so short a run the rule holds early, late or never
    s.list_ops.train_samples = 12000;
    s.list_ops.validation_samples = 128;
    s.list_ops.test_samples = 1000;
    s.list_ops.min_length = 200;
    s.list_ops.max_length = 1000;
    s.list_ops.max_depth = 4;  // wide and shallow: much is learnt within minutes
    s.list_ops.max_arguments = 30;
}

void check_own(const TrainSettings& s) {
    if (!s.data.empty()) return;
    check(s.list_ops);
    if (s.list_ops.max_length > s.sample_length()) {
        throw UserError("max-length is {}, but length allows {}: lower it or raise --length",
                        s.list_ops.max_length, s.sample_length());
    }
}

Dataset read_or_generate(const TrainSettings& s, const Say& say) {
    if (!s.data.empty()) {
        say(fmt::format("reading {}", s.data));
        return read_list_ops_folder(s.data, s.sample_length());
    }
    say(fmt::format("generating {} + {} + {} ListOps expressions of {} to {} tokens",
                    s.list_ops.train_samples, s.list_ops.validation_samples,
                    s.list_ops.test_samples, s.list_ops.min_length, s.list_ops.max_length));
    return generate_list_ops(s.list_ops, thread_count());
}

TaskData load(const TrainSettings& s, const Say& say) {
    Dataset data = read_or_generate(s, say);
    return {.train = std::make_shared<Split>(std::move(data.train)),
            .validation = std::make_shared<Split>(std::move(data.validation)),
            .test = std::make_shared<Split>(std::move(data.test)),
            .classes = kListOpsClasses,
            .vocabulary = kListOpsTokens};
}

std::shared_ptr<const Samples> load_unlabelled(const std::filesystem::path& file,
                                               const TrainSettings& s) {
    return std::make_shared<Split>(read_list_ops_tsv(file, s.sample_length()));
}

void write(const TrainSettings& s, const std::filesystem::path& folder) {
    write_list_ops_folder(generate_list_ops(s.list_ops, thread_count()), folder);
}

}  // namespace

extern const Task kListOpsTask;
const Task kListOpsTask = {
    .name = "listops",
    .summary = "ListOps, as in Long Range Arena, with the paper's settings as defaults",
    .files =
        "a folder with Long Range Arena's basic_{train,val,test}.tsv; without it samples are "
        "generated",
    .paper = paper,
    .demo = demo,
    .check = check_own,
    .load = load,
    .load_unlabelled = load_unlabelled,
    .write = write,
    .files_written = "basic_train.tsv, basic_val.tsv and basic_test.tsv",
    .recipe = R"(ListOps is generated: nothing has to be fetched.
    spion data listops --out listops          96000 + 2000 + 2000 expressions as TSV
    spion train listops --data listops --out RUN
Long Range Arena's own files are lra_release/lra_release/listops-1000/ of its archive
lra_release.gz (a gzipped tar of some 8 GB): give that folder as --data.
)"};

}  // namespace spion
