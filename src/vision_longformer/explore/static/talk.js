// What is asked of the server, and what the page says in return.

const notice = document.getElementById("notice");

export function say(sentence) {
  notice.textContent = sentence;
  notice.hidden = !sentence;
  clearTimeout(say.timer);
  if (sentence) say.timer = setTimeout(() => (notice.hidden = true), 8000);
}

export async function ask(action, body) {
  let answer;
  try {
    answer = await fetch(`api/${action}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    say("The server does not answer: is the command still running?");
    return null;
  }
  const found = await answer.json();
  if (!answer.ok) {
    say(sentence(found.error));
    return null;
  }
  say("");
  return found;
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
