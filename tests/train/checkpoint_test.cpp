#include "train/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "io/safetensors.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/tiny_run.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

fs::path step_file(const ScratchFolder& folder, const std::string& run, int step) {
    return folder.file(fmt::format("{}/checkpoints/step-{:08}.safetensors", run, step));
}

// What two checkpoints must share, wherever and whenever they were written.
void expect_same_model(const fs::path& file, const fs::path& other) {
    const Checkpoint a = read_checkpoint(file), b = read_checkpoint(other);
    EXPECT_EQ(a.values, b.values);
    EXPECT_EQ(a.first_moment, b.first_moment);
    EXPECT_EQ(a.second_moment, b.second_moment);
    EXPECT_EQ(a.patterns, b.patterns);
    EXPECT_EQ(a.state.step, b.state.step);
    EXPECT_EQ(a.state.best_accuracy, b.state.best_accuracy);
    EXPECT_EQ(a.state.best_step, b.state.best_step);
    ASSERT_EQ(a.state.loss_scale.has_value(), b.state.loss_scale.has_value());
    if (!a.state.loss_scale) return;
    EXPECT_EQ(a.state.loss_scale->scale, b.state.loss_scale->scale);
    EXPECT_EQ(a.state.loss_scale->good_steps, b.state.loss_scale->good_steps);
    EXPECT_EQ(a.state.loss_scale->skipped, b.state.loss_scale->skipped);
}

// A whole run, and the same gone on with from some of its checkpoints in a copy of its folder.
void expect_bit_for_bit(const TrainSettings& settings, bool turns_sparse) {
    const ScratchFolder folder;
    const Outcome whole = run(settings, folder.file("whole"));
    EXPECT_EQ(whole.report.transition_step.has_value(), turns_sparse);
    for (const int step : {3, 9, 12, 21}) {  // before, at and after the transition
        SCOPED_TRACE(step);
        const std::string copy = fmt::format("copy{}", step);
        fs::copy(folder.file("whole"), folder.file(copy), fs::copy_options::recursive);
        const Checkpoint from = read_checkpoint(step_file(folder, copy, step));
        EXPECT_EQ(from.state.step, step);
        EXPECT_EQ(to_toml(from.settings), to_toml(settings));
        const Outcome rest = run(settings, folder.file(copy), &from);
        EXPECT_EQ(rest.summary_of_losses(), whole.summary_of_losses());
        EXPECT_EQ(rest.report.transition_step, whole.report.transition_step);
        EXPECT_EQ(rest.report.densities, whole.report.densities);
        ASSERT_TRUE(rest.report.test);
        EXPECT_EQ(rest.report.test->loss, whole.report.test->loss);
        expect_same_model(step_file(folder, copy, 24), step_file(folder, "whole", 24));
    }
}

TrainSettings with_checkpoints() {
    TrainSettings settings = tiny_settings();
    settings.checkpoint_every = 3;
    settings.keep_checkpoints = 100;
    return settings;
}

TEST(Resume, IsBitForBitAcrossAFixedTransition) {
    TrainSettings settings = with_checkpoints();
    settings.transition_step = 10;
    expect_bit_for_bit(settings, true);
}

TEST(Resume, IsBitForBitWithAPatternAHead) {
    TrainSettings settings = with_checkpoints();
    settings.heads = 2;
    settings.d_model = 32;
    settings.per_head = true;
    settings.transition_step = 10;
    expect_bit_for_bit(settings, true);
    settings.transition_step = 9;
    settings.autotune = true;
    expect_bit_for_bit(settings, true);
}

TEST(Resume, IsBitForBitUnderTheRule) {
    for (const ScoreMode mode : {ScoreMode::kExact, ScoreMode::kPooled}) {
        TrainSettings settings = with_checkpoints();
        settings.scores = mode;
        settings.transition_change = 1000000;  // holds at the third evaluation
        expect_bit_for_bit(settings, true);
    }
}

TEST(Resume, IsBitForBitWhenDenseAndWhenTuned) {
    TrainSettings settings = with_checkpoints();
    settings.dense = true;
    expect_bit_for_bit(settings, false);
    settings.dense = false;
    settings.transition_step = 9;
    settings.autotune = true;
    expect_bit_for_bit(settings, true);
}

TEST(Resume, IsBitForBitWithAScaledLoss) {
    TrainSettings settings = with_checkpoints();
    settings.transition_step = 10;
    let_gradients_overflow(settings);
    settings.loss_scale_growth = 3;
    expect_bit_for_bit(settings, true);
}

TEST(Checkpoints, KeepsTheLatestAndTheBest) {
    const ScratchFolder folder;
    TrainSettings settings = with_checkpoints();
    settings.dense = true;
    settings.keep_checkpoints = 2;
    const Outcome outcome = run(settings, folder.file("run"));
    const CheckpointFolder checkpoints(folder.file("run/checkpoints"));
    EXPECT_EQ(checkpoints.files(),
              (std::vector<fs::path>{step_file(folder, "run", 24), step_file(folder, "run", 21)}));
    double best = -1;
    int best_step = 0;
    for (const auto& row : outcome.rows) {
        if (row.at("split") == "validation" && std::stod(row.at("accuracy")) > best) {
            best = std::stod(row.at("accuracy"));
            best_step = std::stoi(row.at("step"));
        }
    }
    const Checkpoint kept = read_checkpoint(folder.file("run/checkpoints/best.safetensors"));
    EXPECT_EQ(kept.state.step, best_step);
    EXPECT_NEAR(kept.state.best_accuracy, best, 1e-6);
}

TEST(Checkpoints, OneThatCannotBeWrittenEndsNothing) {
    const ScratchFolder folder;
    TrainSettings settings = with_checkpoints();
    settings.dense = true;
    const auto device = open_device(settings.device);
    const TaskData data = task_named("listops").load(settings, [](std::string_view) {});
    KernelCache cache(test_cache_root());
    RunFolder run_folder(folder.file("run"));
    folder.write("run/checkpoints", "a file where the folder should be");
    std::string said;
    Progress progress([&](std::string_view text) { said += text; }, [] { return Terminal{}; });
    const TrainReport report = train(settings, data, *device, cache, run_folder, progress);
    EXPECT_EQ(report.steps_done, 24);
    EXPECT_NE(said.find("no checkpoint was kept of step 3: "), std::string::npos) << said;
    EXPECT_NE(said.find("cannot be written: Not a directory"), std::string::npos) << said;
    EXPECT_NE(said.find("training goes on"), std::string::npos) << said;
}

// While one is tight, files of this process end after some bytes, as they do on a full disk.
class Disk {
  public:
    Disk() : handler_(std::signal(SIGXFSZ, SIG_IGN)) { getrlimit(RLIMIT_FSIZE, &usual_); }
    ~Disk() {
        set_full(false);
        std::signal(SIGXFSZ, handler_);
    }
    Disk(const Disk&) = delete;
    Disk& operator=(const Disk&) = delete;
    void set_full(bool full) const {
        constexpr rlim_t kLessThanACheckpoint = 10000;
        rlimit limit = usual_;
        if (full) limit.rlim_cur = kLessThanACheckpoint;
        setrlimit(RLIMIT_FSIZE, &limit);
    }

  private:
    rlimit usual_{};
    void (*handler_)(int);
};

// Full after step 4, and with room again after step 9.
TEST(Checkpoints, OfAFullDiskLeaveTheLastOneAndComeAgain) {
    const ScratchFolder folder;
    TrainSettings settings = with_checkpoints();
    settings.dense = true;
    const auto device = open_device(settings.device);
    const TaskData data = task_named("listops").load(settings, [](std::string_view) {});
    KernelCache cache(test_cache_root());
    RunFolder run_folder(folder.file("run"));
    const CheckpointFolder checkpoints(folder.file("run/checkpoints"));
    const Disk disk;
    std::string said;
    const auto hear = [&](std::string_view text) {
        said += text;
        if (text.find("step 4: validation") != std::string_view::npos) disk.set_full(true);
        if (text.find("no checkpoint was kept of step 9") == std::string_view::npos) return;
        EXPECT_EQ(checkpoints.files(), (std::vector<fs::path>{step_file(folder, "run", 3)}));
        EXPECT_EQ(checkpoints.latest([](std::string_view) {})->state.step, 3);
        disk.set_full(false);
    };
    Progress progress(hear, [] { return Terminal{}; });
    const TrainReport report = train(settings, data, *device, cache, run_folder, progress);
    EXPECT_EQ(report.steps_done, 24);
    for (const char* text : {"no checkpoint was kept of step 6: ", "of step 9: ", "File too large",
                             "training goes on"}) {
        EXPECT_NE(said.find(text), std::string::npos) << text << " is not in " << said;
    }
    EXPECT_EQ(said.find("no checkpoint was kept of step 12"), std::string::npos) << said;
    std::vector<fs::path> kept;
    for (const int step : {24, 21, 18, 15, 12, 3}) kept.push_back(step_file(folder, "run", step));
    EXPECT_EQ(checkpoints.files(), kept);
    for (const auto& entry : fs::directory_iterator(folder.file("run/checkpoints"))) {
        EXPECT_EQ(entry.path().filename().string().find("unfinished"), std::string::npos) << entry;
    }
}

class Damaged : public testing::Test {
  protected:
    void SetUp() override {
        TrainSettings settings = with_checkpoints();
        settings.steps = 6;
        settings.transition_step = 2;
        run(settings, folder_.file("run"));
        whole_ = read_file(step_file(folder_, "run", 6));
    }
    void expect_refused(const std::string& bytes, const std::string& text) {
        const std::string file = folder_.write("changed.safetensors", bytes);
        expect_error<UserError>([&] { read_checkpoint(file); }, text);
    }
    std::string changed(const std::string& from, const std::string& to) const {
        std::string bytes = whole_;
        EXPECT_EQ(from.size(), to.size());
        const std::size_t at = bytes.find(from);
        EXPECT_NE(at, std::string::npos) << from;
        return bytes.replace(at, from.size(), to);
    }
    ScratchFolder folder_;
    std::string whole_;
};

TEST_F(Damaged, IsRefusedInASentence) {
    expect_refused("not tensors", "changed.safetensors is no checkpoint, or is cut short");
    expect_refused(whole_.substr(0, 100), "is no checkpoint, or is cut short");
    expect_refused(whole_.substr(0, whole_.size() - 1), "is damaged (a tensor lies outside");
    expect_refused(changed("\"spion_checkpoint\":\"1\"", "\"spion_checkpoint\":\"3\""),
                   "has checkpoint format 3, but this spion knows 1 and 2 only");
    expect_refused(changed("\"spion_checkpoint\"", "\"other_checkpoint\""),
                   "holds tensors, but no checkpoint of spion");
    expect_refused(changed("task = \\\"listops", "task = \\\"listopz"),
                   "changed.safetensors:2:1: task: 'listopz' is no task");
    expect_refused(changed("softmax = \\\"pruned_zero", "softmax = \\\"pruned_none"),
                   ": softmax: softmax kind 'pruned_none' is not known");
    expect_refused(changed("layers = 2", "layers = 3"), "layer2.norm1.gamma");
    expect_refused(changed("feed-forward = 24", "feed-forward = 32"),
                   "tensor layer0.feed_forward1.weight has shape (24, 16)");
    expect_refused(
        changed("\"classes\":\"10\"", "\"classes\":\"99\""),
        "tensor head2.weight has shape (10, 24), but a model of its settings has (99, 24)");
}

// The one before is taken, and the damaged one is named.
TEST_F(Damaged, IsPassedOverForTheOneBefore) {
    folder_.write("run/checkpoints/step-00000006.safetensors", whole_.substr(0, 5000));
    std::string said;
    const auto found =
        CheckpointFolder(folder_.file("run/checkpoints")).latest([&](std::string_view text) {
            said += text;
        });
    ASSERT_TRUE(found);
    EXPECT_EQ(found->state.step, 3);
    EXPECT_NE(said.find("step-00000006.safetensors"), std::string::npos) << said;
    EXPECT_FALSE(CheckpointFolder(folder_.file("none")).latest([](std::string_view) {}));
}

// Its notes and tensors as anyone's reader of safetensors sees them.
TEST_F(Damaged, WholeIsPlainSafetensors) {
    const auto names = safetensors_names(whole_, "file");
    for (const char* name : {"token", "layer1.feed_forward2.weight", "pattern.layer0",
                             "first_moment.head1.bias", "second_moment.position"}) {
        EXPECT_TRUE(std::binary_search(names.begin(), names.end(), name)) << name;
    }
    EXPECT_EQ(safetensors_metadata(whole_, "file").at("task"), "listops");
}

}  // namespace
}  // namespace spion
