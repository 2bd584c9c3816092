#include "context/encode_queue.h"

#include <algorithm>
#include <chrono>

#include "ops/shared_cores.h"

namespace cepe::context {

FlightPointer EncodeQueue::join(const ChunkKey& key) {
  const auto found = flights_.find(key);
  if (found == flights_.end()) return nullptr;
  ++found->second->requests;
  return found->second;
}

FlightPointer EncodeQueue::begin(Flight flight) {
  auto begun = std::make_shared<Flight>(std::move(flight));
  begun->requests = 1;
  flights_[begun->key] = begun;
  return begun;
}

void EncodeQueue::land(const FlightPointer& flight, at::Tensor states) {
  flight->states = std::move(states);
  keep_(*flight);
  flights_.erase(flight->key);
  changed_.notify_all();
}

void EncodeQueue::enqueue(const FlightPointer& flight) {
  flight->stage = Flight::Stage::queued;
  queue_.push_back(flight);
  changed_.notify_all();
}

void EncodeQueue::leave(const FlightPointer& flight, bool own) {
  --flight->requests;
  if (flight->landed() || flight->stage == Flight::Stage::encoding) return;
  if (flight->requests > 0) {
    if (own && flight->stage == Flight::Stage::sought) enqueue(flight);
    return;
  }
  std::erase(queue_, flight);
  flights_.erase(flight->key);
}

// The oldest one that waits, and what is as long: no padding.
std::vector<FlightPointer> EncodeQueue::take_batch() {
  std::vector<FlightPointer> batch;
  const size_t length = queue_.front()->ids.size();
  for (auto place = queue_.begin(); place != queue_.end() && batch.size() < most_;) {
    if ((*place)->ids.size() != length) {
      ++place;
      continue;
    }
    (*place)->stage = Flight::Stage::encoding;
    batch.push_back(*place);
    place = queue_.erase(place);
  }
  return batch;
}

void EncodeQueue::encode_batch(std::unique_lock<std::mutex>& lock) {
  encoding_ = true;
  const std::vector<FlightPointer> batch = take_batch();
  lock.unlock();
  std::exception_ptr error;
  std::vector<at::Tensor> states(batch.size());
  try {
    const ops::WorkOfAllThreads work;
    states = encode_(batch);
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  for (size_t i = 0; i < batch.size(); ++i) {
    if (!error) {
      land(batch[i], std::move(states[i]));
    } else {
      batch[i]->error = error;
      flights_.erase(batch[i]->key);
    }
  }
  encoding_ = false;
  changed_.notify_all();
}

void EncodeQueue::wait_for(const std::vector<FlightPointer>& flights, const std::function<void()>& progress) {
  std::unique_lock lock(mutex_);
  size_t first = 0;  // that has not landed
  const auto landed = [&] {
    while (first < flights.size() && flights[first]->landed()) ++first;
    return first == flights.size();
  };
  while (!landed()) {
    lock.unlock();
    progress();
    lock.lock();
    if (landed()) break;
    if (encoding_ || queue_.empty()) {
      changed_.wait_for(lock, std::chrono::milliseconds(100));
      continue;
    }
    encode_batch(lock);
  }
  lock.unlock();
  progress();
  for (const FlightPointer& flight : flights)
    if (flight->error) std::rethrow_exception(flight->error);
}

}  // namespace cepe::context
