#include "agent/guest/process_server.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "agent/guest/stream_peer.h"

namespace bunker::guest {
namespace {

using wire::FrameType;

constexpr uint64_t kKeepEndedMicros = uint64_t{3600} * 1'000'000;
constexpr size_t kMaxWriteBytes = 128 * 1024;

uint64_t TokenOf(pid_t pid) {
  return ProcessServer::kTokenBit | static_cast<uint64_t>(pid) << 2;
}

CommandError NoProcess(pid_t pid) {
  return {v1::ExecError::NO_PROCESS,
          "there is no process " + std::to_string(pid) + "; list the processes"};
}

CommandError NoMain() {
  return {v1::ExecError::NO_PROCESS,
          "this bunker has no main program; create one with `main` to have its image's started"};
}

CommandError HasEnded(pid_t pid) {
  return {v1::ExecError::NO_PROCESS,
          "the process " + std::to_string(pid) + " has ended; list the processes"};
}

template <typename Message>
bool Parse(const wire::Frame& frame, Message* message) {
  return message->ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size()));
}

}  // namespace

bool ProcessServer::OnFrame(const wire::Frame& frame) {
  const bool is_mine = readers_.count(frame.stream) > 0 || writes_.count(frame.stream) > 0 ||
                       main_waits_.count(frame.stream) > 0;
  if (frame.type == FrameType::kProcessCall) {
    v1::ProcessCall call;
    if (!Parse(frame, &call)) {
      SendError(outbox_, frame.stream, {v1::ExecError::INVALID, "the call can't be read"});
    } else if (!is_mine) {
      Call(frame.stream, call);
    }
    return true;
  }
  if (frame.type == FrameType::kProcessAttach) {
    v1::ProcessAttach attach;
    if (!is_mine && Parse(frame, &attach)) Attach(frame.stream, attach);
    return true;
  }
  if (is_mine) OnStreamFrame(frame);
  return is_mine;
}

void ProcessServer::OnStreamFrame(const wire::Frame& frame) {
  const auto reader = readers_.find(frame.stream);
  if (frame.type == FrameType::kKill) {
    if (reader != readers_.end() || main_waits_.erase(frame.stream) > 0) {
      // The host waits for the stream's end, whatever it is.
      SendError(outbox_, frame.stream, {v1::ExecError::FAILED, "nobody listens any more"});
      readers_.erase(frame.stream);
    } else if (const auto write = writes_.find(frame.stream); write != writes_.end()) {
      if (const auto found = processes_.find(write->second); found != processes_.end()) {
        found->second->StopWrite(frame.stream);
      }
    }
    return;
  }
  v1::Credit credit;
  if (frame.type != FrameType::kCredit || reader == readers_.end()) return;
  if (Parse(frame, &credit) && reader->second.credit.Grant(credit.bytes()) &&
      Pump(frame.stream, &reader->second)) {
    readers_.erase(reader);
  }
}

void ProcessServer::Call(uint32_t stream, const v1::ProcessCall& call) {
  switch (call.call_case()) {
    case v1::ProcessCall::kStart:
      return Start(stream, call.start());
    case v1::ProcessCall::kList: {
      v1::ProcessAnswer answer;
      for (const auto& [pid, process] : processes_) {
        if (process->started()) *answer.add_rows() = process->Row();
      }
      return outbox_->Send(stream, FrameType::kProcessAnswer, answer.SerializeAsString());
    }
    case v1::ProcessCall::kGet:
      if (const Process* process = Find(stream, static_cast<pid_t>(call.get()))) {
        AnswerRow(stream, *process);
      }
      return;
    case v1::ProcessCall::kSignal:
      return Signal(stream, call.signal(), call.allow_root());
    case v1::ProcessCall::kWrite:
      return Write(stream, call.write(), call.allow_root());
    case v1::ProcessCall::kCloseStdin:
      return CloseStdin(stream, static_cast<pid_t>(call.close_stdin()), call.allow_root());
    case v1::ProcessCall::kMainWait:
      return WaitForMain(stream, call.main_wait());
    case v1::ProcessCall::CALL_NOT_SET:
      return SendError(outbox_, stream, {v1::ExecError::INVALID, "the call asks for nothing"});
  }
}

bool ProcessServer::MakeRoom() {
  const uint64_t now = NowMicros();
  std::vector<std::pair<uint64_t, pid_t>> ended;
  for (const auto& [pid, process] : processes_) {
    if (process->ended()) ended.emplace_back(process->ended_us(), pid);
  }
  if (processes_.size() - ended.size() >= kMaxRunning) return false;
  std::sort(ended.begin(), ended.end());
  for (const auto& [at, pid] : ended) {
    if (processes_.size() >= kMaxRows || now - at > kKeepEndedMicros) Forget(pid);
  }
  return true;
}

void ProcessServer::Forget(pid_t pid) {
  const auto found = processes_.find(pid);
  if (found == processes_.end()) return;
  if (found->second->session() != nullptr) retire_(found->second->session());
  processes_.erase(found);
  for (auto at = readers_.begin(); at != readers_.end();) {
    if (at->second.pid == pid) {
      SendError(outbox_, at->first, NoProcess(pid));
      at = readers_.erase(at);
    } else {
      ++at;
    }
  }
}

void ProcessServer::Start(uint32_t stream, const v1::ExecStart& start) {
  if (!MakeRoom()) {
    return SendError(outbox_, stream,
                     {v1::ExecError::BUSY, "32 processes run already; end one of them"});
  }
  Launcher::Launched launched;
  if (CommandError error = launcher_->Launch(start, &launched); !error.ok()) {
    return SendError(outbox_, stream, error);
  }
  const pid_t pid = launched.child.pid;
  Forget(pid);  // an ended one, whose number came round again
  starts_[pid] = stream;
  processes_[pid] = std::make_unique<Process>(start, std::move(launched), poller_,
                                              outbox_->DataSpace(), TokenOf(pid), this);
}

Process* ProcessServer::Find(uint32_t stream, pid_t pid) {
  const auto found = processes_.find(pid);
  if (found != processes_.end() && found->second->started()) return found->second.get();
  SendError(outbox_, stream, NoProcess(pid));
  return nullptr;
}

Process* ProcessServer::FindToChange(uint32_t stream, pid_t pid, bool allow_root) {
  Process* process = Find(stream, pid);
  if (process == nullptr) return nullptr;
  if (process->ended()) {
    SendError(outbox_, stream, HasEnded(pid));
    return nullptr;
  }
  if (process->privileged() && !allow_root) {
    SendError(outbox_, stream,
              {v1::ExecError::ROOT_DENIED,
               "the process " + std::to_string(pid) + " was started by one who may be root"});
    return nullptr;
  }
  return process;
}

void ProcessServer::AnswerRow(uint32_t stream, const Process& process) {
  v1::ProcessAnswer answer;
  *answer.add_rows() = process.Row();
  outbox_->Send(stream, FrameType::kProcessAnswer, answer.SerializeAsString());
}

void ProcessServer::Signal(uint32_t stream, const v1::ProcessSignal& signal, bool allow_root) {
  Process* process = FindToChange(stream, static_cast<pid_t>(signal.pid()), allow_root);
  if (process == nullptr) return;
  if (signal.signal() == 0 || signal.signal() >= static_cast<uint32_t>(NSIG)) {
    return SendError(outbox_, stream, {v1::ExecError::INVALID, "there is no such signal"});
  }
  process->session()->Kill(signal.signal());
  AnswerRow(stream, *process);
}

void ProcessServer::CloseStdin(uint32_t stream, pid_t pid, bool allow_root) {
  Process* process = FindToChange(stream, pid, allow_root);
  if (process == nullptr) return;
  process->session()->CloseStdin();
  AnswerRow(stream, *process);
}

void ProcessServer::Write(uint32_t stream, const v1::ProcessWrite& write, bool allow_root) {
  const auto pid = static_cast<pid_t>(write.pid());
  Process* process = FindToChange(stream, pid, allow_root);
  if (process == nullptr) return;
  if (write.data().size() > kMaxWriteBytes) {
    return SendError(outbox_, stream, {v1::ExecError::INVALID, "write less at once"});
  }
  writes_[stream] = pid;
  if (process->Write(stream, write.data())) return;
  writes_.erase(stream);
  SendError(outbox_, stream,
            {v1::ExecError::BUSY, "another write to this process's stdin is under way"});
}

void ProcessServer::OnWritten(Process& process, uint32_t stream, size_t taken) {
  if (writes_.erase(stream) == 0) return;
  v1::ProcessAnswer answer;
  *answer.add_rows() = process.Row();
  answer.set_taken_bytes(static_cast<uint32_t>(taken));
  outbox_->Send(stream, FrameType::kProcessAnswer, answer.SerializeAsString());
}

void ProcessServer::StartMain(const v1::MainProgram& program) {
  if (main_ != nullptr) return;
  main_ = std::make_unique<MainProgram>(
      program, launcher_, poller_, outbox_->DataSpace(), TokenOf(kMainPid),
      MainProgram::Listener{[this] { OnNewsOf(kMainPid); }, [this] { OnMainChanged(); }, retire_});
  main_->Start();
}

void ProcessServer::WaitForMain(uint32_t stream, const v1::MainWait& wait) {
  if (main_ == nullptr) return SendError(outbox_, stream, NoMain());
  if (main_waits_.size() >= kMaxMainWaits) {
    return SendError(outbox_, stream, {v1::ExecError::BUSY, "too many wait for main already"});
  }
  main_waits_[stream] = wait.seen_serial();
  OnMainChanged();
}

void ProcessServer::OnMainChanged() {
  v1::ProcessAnswer answer;
  *answer.mutable_main() = main_->Row();
  const std::string payload = answer.SerializeAsString();
  for (auto at = main_waits_.begin(); at != main_waits_.end();) {
    if (at->second == answer.main().serial()) {
      ++at;
      continue;
    }
    outbox_->Send(at->first, FrameType::kProcessAnswer, payload);
    at = main_waits_.erase(at);
  }
}

const OutputSource* ProcessServer::FindSource(pid_t pid) const {
  if (pid == kMainPid) return main_.get();
  const auto found = processes_.find(pid);
  return found == processes_.end() ? nullptr : found->second.get();
}

void ProcessServer::Attach(uint32_t stream, const v1::ProcessAttach& attach) {
  const pid_t pid = attach.main() ? kMainPid : static_cast<pid_t>(attach.pid());
  if (attach.main() && main_ == nullptr) return SendError(outbox_, stream, NoMain());
  if (!attach.main() && Find(stream, pid) == nullptr) return;
  const OutputSource* source = FindSource(pid);
  if (readers_.size() >= kMaxListeners) {
    return SendError(outbox_, stream, {v1::ExecError::BUSY, "64 readers listen already"});
  }
  if (attach.offset() > source->output().end()) {
    return SendError(outbox_, stream,
                     {v1::ExecError::INVALID, "offset lies behind the output's end, which is " +
                                                  std::to_string(source->output().end())});
  }
  v1::Started started;
  started.set_pid(attach.pid());
  outbox_->Send(stream, FrameType::kStarted, started.SerializeAsString());
  Reader& reader = readers_[stream];
  reader.pid = pid;
  reader.follow = !attach.no_follow();
  reader.offset = attach.offset();
  if (Pump(stream, &reader)) readers_.erase(stream);
}

bool ProcessServer::Pump(uint32_t stream, Reader* reader) {
  const OutputSource* source = FindSource(reader->pid);
  if (source == nullptr) return true;
  const OutputRing& output = source->output();
  while (outbox_->HasRoom()) {
    if (reader->offset < output.begin()) {
      v1::Gap gap;
      gap.set_bytes(output.begin() - reader->offset);
      reader->offset = output.begin();
      outbox_->Send(stream, FrameType::kGap, gap.SerializeAsString());
    }
    if (reader->offset == output.end()) {
      if (!reader->follow) {
        v1::LogEnd end;
        end.set_next_offset(reader->offset);
        outbox_->Send(stream, FrameType::kLogEnd, end.SerializeAsString());
        return true;
      }
      if (!source->ended()) return false;
      outbox_->Send(stream, FrameType::kExecExit, source->exit().SerializeAsString());
      return true;
    }
    const size_t room = std::min<size_t>(reader->credit.available(), wire::kMaxDataBytes);
    if (room == 0) return false;
    const OutputRing::Piece piece = output.At(reader->offset, room);
    piece.data.copy(outbox_->DataSpace(), piece.data.size());
    reader->credit.Spend(static_cast<uint32_t>(piece.data.size()));
    reader->offset += piece.data.size();
    outbox_->SendData(stream, piece.is_stderr ? FrameType::kStderr : FrameType::kStdout,
                      piece.data.size());
  }
  return false;
}

void ProcessServer::OnProcessNews(Process& process) { OnNewsOf(process.pid()); }

void ProcessServer::OnNewsOf(pid_t pid) {
  for (auto at = readers_.begin(); at != readers_.end();) {
    const bool done = at->second.pid == pid && Pump(at->first, &at->second);
    at = done ? readers_.erase(at) : std::next(at);
  }
}

void ProcessServer::OnRoom() {
  for (auto at = readers_.begin(); at != readers_.end();) {
    at = Pump(at->first, &at->second) ? readers_.erase(at) : std::next(at);
  }
}

void ProcessServer::OnProcessStarted(Process& process) {
  const auto waiting = starts_.find(process.pid());
  if (waiting == starts_.end()) return;
  AnswerRow(waiting->second, process);
  starts_.erase(waiting);
}

void ProcessServer::OnProcessFailed(Process& process, const CommandError& error) {
  const auto waiting = starts_.find(process.pid());
  if (waiting == starts_.end()) return;
  SendError(outbox_, waiting->second, error);
  starts_.erase(waiting);
}

void ProcessServer::StartSession() {
  readers_.clear();
  starts_.clear();
  writes_.clear();
  main_waits_.clear();
  for (const auto& [pid, process] : processes_) process->ForgetWrite();
}

void ProcessServer::OnReady(uint64_t token) {
  if (main_ != nullptr && (token & ~kTokenBit) >> 2 == kMainPid) {
    return main_->OnReady(static_cast<ExecSession::Channel>(token & 3));
  }
  const auto found = processes_.find(static_cast<pid_t>((token & ~kTokenBit) >> 2));
  if (found == processes_.end() || found->second->session() == nullptr) return;
  found->second->session()->OnReady(static_cast<ExecSession::Channel>(token & 3));
}

void ProcessServer::OnReaped(pid_t pid, int wait_status) {
  if (main_ != nullptr) main_->OnReaped(pid, wait_status);
  const auto found = processes_.find(pid);
  if (found == processes_.end() || found->second->session() == nullptr) return;
  if (found->second->session()->pid() == pid) found->second->session()->OnReaped(wait_status);
}

uint64_t ProcessServer::NextWakeMicros() const {
  uint64_t wake = main_ != nullptr ? main_->NextWakeMicros() : 0;
  for (const auto& [pid, process] : processes_) {
    const uint64_t at = process->session() != nullptr ? process->session()->NextWakeMicros() : 0;
    if (at != 0 && (wake == 0 || at < wake)) wake = at;
  }
  return wake;
}

void ProcessServer::RunTimers(uint64_t now_us) {
  if (main_ != nullptr) main_->OnTime(now_us);
  for (const auto& [pid, process] : processes_) {
    ExecSession* session = process->session();
    if (session != nullptr && session->NextWakeMicros() != 0) session->OnTime(now_us);
  }
}

void ProcessServer::Collect() {
  if (main_ != nullptr) main_->Collect();
  for (auto at = processes_.begin(); at != processes_.end();) {
    Process& process = *at->second;
    if (process.ended() && process.session() != nullptr) {
      retire_(process.session());
      process.ReleaseSession();
    }
    at = process.failed() ? processes_.erase(at) : std::next(at);
  }
}

}  // namespace bunker::guest
