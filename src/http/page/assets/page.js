// The page works without this script. With it, times say how long ago they were.
const ago = (seconds) => {
  const s = Math.max(0, Math.round(Math.abs(seconds)));
  const text = s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
};

const age = () => {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const text = ago((now - Date.parse(time.dateTime)) / 1000);
    if (time.dataset.ago !== text) time.dataset.ago = text;
  }
};

age();
setInterval(age, 1000);
