// The core on its real loop and its real store: many threads at once, and kill -9.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/base/unique_fd.h"
#include "controller/engine/bootstrap.h"
#include "controller/engine/core.h"
#include "controller/store/sqlite_store.h"
#include "gtest/gtest.h"
#include "tests/unit/common_sqlite/temp_dir.h"

namespace bunker::controller {
namespace {

// A controller's heart, without its skin.
class Heart {
 public:
  explicit Heart(const std::string& path) : rng_(static_cast<uint64_t>(getpid())) {
    store_ = *SqliteStore::Open(path, {});
    engine_ = std::make_unique<Engine>(EngineOptions{}, rng_);
    EXPECT_TRUE(engine_->Load(*store_, absl::Now()).ok());
    loop_ = *EventLoop::Create();
    core_ = std::make_unique<Core>(*loop_, *store_, *engine_, Core::Options{});
  }
  ~Heart() {
    store_.reset();  // its last callbacks post to the loop
    core_.reset();
  }

  Core& core() { return *core_; }
  EventLoop& loop() { return *loop_; }
  Engine& engine() { return *engine_; }
  SqliteStore& store() { return *store_; }

 private:
  SeededRng rng_;
  std::unique_ptr<SqliteStore> store_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Core> core_;
};

Caller Admin() {
  Caller caller = OperatorCaller();
  caller.tenant_id = "tnt_a";
  caller.partner_id = "ptr_a";
  caller.user_id = "usr_a";
  return caller;
}

void Register(Core& core, const std::string& name, std::function<void(absl::Status)> done) {
  core.Post([name, done](Engine& engine, Turn& turn) {
    RegisterImageSpec spec;
    spec.name = name;
    spec.size_mib = 64;
    const auto image = engine.RegisterImage(turn, Admin(), spec);
    turn.AfterCommit([done, status = image.status()](const absl::Status& committed) {
      done(committed.ok() ? status : committed);
    });
  });
}

TEST(Durable, ManyThreadsShareFewCommits) {
  TempDir dir;
  constexpr int kThreads = 8;
  constexpr int kEach = 250;
  {
    Heart heart(dir.File("state.db"));
    std::atomic<int> done{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) {
          Register(heart.core(), "i-" + std::to_string(t) + "-" + std::to_string(i),
                   [&](absl::Status status) {
                     EXPECT_TRUE(status.ok()) << status;
                     if (++done == kThreads * kEach) heart.loop().Stop();
                   });
        }
      });
    }
    heart.loop().Run();
    for (std::thread& thread : threads) thread.join();
    EXPECT_LT(heart.core().commits(), static_cast<uint64_t>(kThreads * kEach) / 10);
    EXPECT_EQ(heart.core().rows_written(), static_cast<uint64_t>(kThreads * kEach));
  }
  Heart again(dir.File("state.db"));
  PageSpec page;
  page.limit = 10'000;
  EXPECT_EQ(again.engine().ListImages(Admin(), {}, page).rows.size(),
            static_cast<size_t>(kThreads * kEach));
}

// The child registers images without end and tells each one's name once it is told that it is
// durable. Killed at any moment, everything it told must be there.
[[noreturn]] void RunChild(const std::string& path, int out, int round) {
  Heart heart(path);
  int next = 0;
  std::function<void()> more = [&] {
    const std::string name = "r" + std::to_string(round) + "-" + std::to_string(next++);
    Register(heart.core(), name, [&, name](absl::Status status) {
      if (!status.ok()) _exit(3);
      const std::string line = name + "\n";
      if (write(out, line.data(), line.size()) != static_cast<ssize_t>(line.size())) _exit(4);
      more();
    });
  };
  for (int i = 0; i < 16; ++i) more();
  heart.loop().Run();
  _exit(5);
}

TEST(Durable, KillMinusNineLosesNothingThatWasAcked) {
  TempDir dir;
  std::set<std::string> acked;
  SeededRng rng(11);
  for (int round = 0; round < 10; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(pipe_fds[0]);
      RunChild(dir.File("state.db"), pipe_fds[1], round);
    }
    close(pipe_fds[1]);
    const UniqueFd in(pipe_fds[0]);
    // Lines, not time, say when it dies: the machine may be slow.
    const size_t enough = acked.size() + 20 + rng.Below(200);
    std::string text;
    char buffer[4096];
    ssize_t got = 0;
    bool killed = false;
    while ((got = read(in.get(), buffer, sizeof(buffer))) > 0) {
      text.append(buffer, static_cast<size_t>(got));
      size_t end = 0;
      while ((end = text.find('\n')) != std::string::npos) {
        acked.insert(text.substr(0, end));
        text.erase(0, end + 1);
      }
      if (!killed && acked.size() >= enough) {
        killed = true;
        ASSERT_EQ(kill(child, SIGKILL), 0);
      }
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit code " << WEXITSTATUS(status);
  }
  Heart heart(dir.File("state.db"));
  const absl::Status invariants = heart.engine().CheckInvariants();
  EXPECT_TRUE(invariants.ok()) << invariants;
  for (const std::string& name : acked) {
    EXPECT_TRUE(heart.engine().FindImage(Admin(), name).ok()) << name << " was acked and is gone";
  }
  EXPECT_GT(acked.size(), 200u);
}

}  // namespace
}  // namespace bunker::controller
