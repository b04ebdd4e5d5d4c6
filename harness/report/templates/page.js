'use strict';
// Tables sort, filter, turn pages and save themselves; pictures are saved as they are drawn. The page is whole without this.
(() => {
  const PAGE = 200; // rows on the screen at once, so that twenty thousand cost nothing
  const number = (text) => {
    const found = /^[^\d+\-−.]{0,2}([+\-−]?[\d.,]*\d(?:[eE][+-]?\d+)?)/.exec(text);
    return found && /^[+\-−.\d]/.test(text.trim()) ? parseFloat(found[1].replace(/,/g, '').replace('−', '-')) : NaN;
  };
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (!isNaN(x) && !isNaN(y)) return x - y;
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    return a < b ? -1 : a > b ? 1 : 0;
  };
  const make = (name, fields, ...inside) => {
    const element = Object.assign(document.createElement(name), fields);
    element.append(...inside);
    return element;
  };
  const save = (name, blob) => {
    const link = make('a', { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const csv = (rows) => rows.map((row) => row.map((cell) =>
    /[",\n\r]/.test(cell) ? '"' + cell.replace(/"/g, '""') + '"' : cell).join(',')).join('\n') + '\n';

  function enhance(box) {
    const table = box.querySelector('table'), body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells], titles = heads.map((head) => head.textContent);
    const kinds = heads.map((head) => head.className);
    if (body.querySelector('.group')) return; // its order has a meaning
    const rest = box.querySelector('script[type="application/json"]');
    const rows = rest ? JSON.parse(rest.textContent) : [...body.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
    const shown = heads.map(() => true);
    let order = rows.map((_, place) => place), column = -1, descending = false, first = 0, chosen = order;

    const draw = () => {
      body.replaceChildren(...chosen.slice(first, first + PAGE).map((place) => {
        const line = document.createElement('tr');
        rows[place].forEach((text, at) => {
          if (!shown[at]) return;
          const cell = line.insertCell();
          cell.className = kinds[at];
          cell.textContent = text;
        });
        return line;
      }));
      heads.forEach((head, at) => {
        head.hidden = !shown[at];
        if (at === column) head.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
        else head.removeAttribute('aria-sort');
      });
      const last = Math.min(first + PAGE, chosen.length);
      const some = chosen.length === rows.length ? `${rows.length}` : `${chosen.length} of ${rows.length}`;
      status.textContent = chosen.length > PAGE ? `rows ${first + 1} to ${last} of ${some}` : `${some} rows`;
      before.hidden = after.hidden = chosen.length <= PAGE;
      before.disabled = first === 0;
      after.disabled = last === chosen.length;
    };
    const choose = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      chosen = words.length ? order.filter((place) => {
        const text = rows[place].join(' ').toLowerCase();
        return words.every((word) => text.includes(word));
      }) : order;
      first = 0;
      draw();
    };
    const sort = (at) => {
      if (column === at && descending) { column = -1; descending = false; } // a third time: as it was
      else { descending = column === at; column = at; }
      order = rows.map((_, place) => place);
      if (column >= 0) {
        // What is missing stands last both ways.
        const gap = (place) => /^(–|$)/.test(rows[place][column]);
        order.sort((a, b) => gap(a) - gap(b) || (descending ? -1 : 1) * compare(rows[a][column], rows[b][column]) || a - b);
      }
      choose();
    };
    const turn = (by) => { first = Math.max(0, first + by); draw(); box.querySelector('.scroll').scrollTop = 0; };

    const search = make('input', { type: 'search', placeholder: 'filter: words', oninput: choose });
    search.setAttribute('aria-label', `Filter the rows of: ${box.dataset.name}`);
    const status = make('span', {});
    status.setAttribute('role', 'status');
    const before = make('button', { type: 'button', textContent: '‹ before', onclick: () => turn(-PAGE) });
    const after = make('button', { type: 'button', textContent: 'after ›', onclick: () => turn(PAGE) });
    const file = make('button', { type: 'button', textContent: 'save CSV', onclick: () =>
      save(`${box.dataset.name.replace(/\W+/g, '-')}.csv`, new Blob([csv([titles, ...chosen.map((place) => rows[place])])], { type: 'text/csv' })) });
    const columns = make('details', {}, make('summary', { textContent: 'columns' }), make('fieldset', {},
      make('legend', { className: 'hidden', textContent: 'Columns to show' }),
      ...titles.map((title, at) => make('label', {}, make('input', { type: 'checkbox', checked: true, onchange: (event) => { shown[at] = event.target.checked; draw(); } }), ` ${title}`))));
    const tools = make('div', { className: 'tools' }, search, before, after, status, file, columns);
    if (rows.length < 4) [search, columns].forEach((each) => each.remove());
    heads.forEach((head, at) => head.replaceChildren(make('button', { type: 'button', textContent: titles[at], title: 'sort', onclick: () => sort(at) })));
    box.querySelector('.more')?.remove();
    box.prepend(tools);
    draw();
  }

  function drawing(figure) {
    const copy = figure.querySelector('.drawing svg').cloneNode(true);
    const [, , width, height] = copy.getAttribute('viewBox').split(' ').map(Number);
    copy.setAttribute('width', width);
    copy.setAttribute('height', height);
    copy.setAttribute('color', '#1a1d21'); // readable on white, whatever the page's colours are
    copy.setAttribute('style', 'background:#fff');
    return [new XMLSerializer().serializeToString(copy), width, height];
  }
  function pictures(figure) {
    const name = figure.dataset.name;
    const svg = () => save(`${name}.svg`, new Blob([drawing(figure)[0]], { type: 'image/svg+xml' }));
    const png = () => {
      const [text, width, height] = drawing(figure);
      const image = new Image();
      image.onload = () => {
        const canvas = make('canvas', { width: 2 * width, height: 2 * height }), context = canvas.getContext('2d');
        context.fillStyle = '#fff';
        context.fillRect(0, 0, canvas.width, canvas.height);
        context.drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob((blob) => save(`${name}.png`, blob));
      };
      image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(text);
    };
    figure.querySelector('.drawing').after(make('div', { className: 'tools' },
      make('button', { type: 'button', textContent: 'save SVG', onclick: svg }),
      make('button', { type: 'button', textContent: 'save PNG', onclick: png })));
  }

  // What is folded away is worked on when it is opened.
  for (const box of document.querySelectorAll('.table')) {
    const fold = box.closest('details');
    if (fold) fold.addEventListener('toggle', () => enhance(box), { once: true });
    else enhance(box);
  }
  for (const figure of document.querySelectorAll('figure')) pictures(figure);
  document.documentElement.dataset.ready = 'yes';
})();
