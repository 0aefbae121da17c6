// Guests that answer by the script: there is one process, 7; what is run writes "hello" and ends; a
// file that is read says the same, and what is written is taken.
#pragma once

#include <memory>
#include <utility>

#include "common/loop/event_loop.h"
#include "controller/api/guest_talk.h"

namespace bunker::controller {

class ScriptedTalks final : public GuestTalkBackend {
 public:
  explicit ScriptedTalks(Loop& loop) : loop_(loop) {}

  void Open(const Bunker&, std::shared_ptr<GuestTalkListener> listener) override {
    loop_.Post([&loop = loop_, listener] {
      listener->OnOpen(std::make_shared<Talk>(loop, listener));
    });
  }

 private:
  class Talk final : public GuestTalk {
   public:
    Talk(Loop& loop, std::shared_ptr<GuestTalkListener> listener)
        : loop_(loop), listener_(std::move(listener)) {}

    bool Write(link::v1::ControllerTunnelFrame frame) override {
      link::v1::AgentTunnelFrame answer;
      if (frame.has_process()) {
        answer.mutable_process()->add_rows()->set_pid(7);
        Say(answer);
      } else if (frame.has_exec() || frame.has_attach() || frame.has_log()) {
        answer.mutable_started()->set_pid(7);
        Say(answer);
        answer.mutable_output()->set_data("hello");
        Say(answer);
        answer.mutable_exit()->set_stdout_bytes(5);
        Say(answer);
      } else if (frame.has_file() || frame.has_file_commit()) {
        SayFile(frame);
      }
      return true;
    }
    void ReadOn() override {}
    void End() override {
      loop_.Post([listener = std::exchange(listener_, nullptr)] {
        if (listener) listener->OnClosed(absl::OkStatus());
      });
    }

   private:
    void SayFile(const link::v1::ControllerTunnelFrame& frame) {
      using link::v1::FileStart;
      const auto op = frame.file().op();
      const bool takes_data = op == FileStart::WRITE || op == FileStart::UNPACK;
      const bool gives_data = op == FileStart::READ;
      link::v1::AgentTunnelFrame answer;
      if (takes_data || gives_data || op == FileStart::WATCH) {
        answer.mutable_file_head();
        if (gives_data) answer.mutable_file_head()->set_size(5);
        Say(answer);
      }
      if (takes_data) return;  // its end follows the commit
      if (gives_data) {
        answer.set_file_data("hello");
        Say(answer);
      }
      answer.mutable_file_end()->mutable_row()->set_type(link::v1::FileRow::FILE);
      Say(answer);
    }

    // In the order said, never from within.
    void Say(const link::v1::AgentTunnelFrame& frame) {
      loop_.Post([listener = listener_, frame] { listener->OnFrame(frame); });
    }

    Loop& loop_;
    std::shared_ptr<GuestTalkListener> listener_;
  };

  Loop& loop_;
};

}  // namespace bunker::controller
